//go:build tools

// Package tools pins the load generator of the lab: its version and the checksums of all it is built from.
package tools

import _ "github.com/tsenart/vegeta/v12"
