//! Scenarios of the session without I/O.
