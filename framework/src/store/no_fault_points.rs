//! Without the feature `testing` nothing happens at the fault points.

/// A step between two of which a process may end.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "without an adapter for a database some are never reached")]
pub(crate) enum FaultPoint {
    Begun,
    Handled,
    Written,
    Committed,
    Read,
    Published,
    Confirmed,
    Removed,
}

/// Reaches a fault point.
pub(crate) fn reach(_: FaultPoint) {}
