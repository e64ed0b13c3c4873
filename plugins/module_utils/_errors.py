# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Errors that an operator reads: each message is one sentence that says what was tried, on what,
what came back, and what to do about it."""

from __future__ import annotations


class DeliveryError(Exception):
    """Any failure that ends a task with a sentence."""


class BadInput(DeliveryError):
    """A value that came from outside is wrong; nothing was changed."""


class Unsupported(DeliveryError):
    """A router cannot do what was asked; nothing was changed."""


class Unreachable(DeliveryError):
    """An endpoint could not be reached, or did not answer before its deadline."""


class Refused(DeliveryError):
    """An endpoint answered, with an error."""


class Conflict(DeliveryError):
    """The state belongs to another rollout, or changed since it was read; nothing was overwritten."""


class Expired(DeliveryError):
    """A lease had run out before it was renewed: stable has all of the traffic since."""
