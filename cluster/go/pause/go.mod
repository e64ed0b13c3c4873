module progressive.delivery/pause

go 1.24.0
