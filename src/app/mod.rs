//! Start order, stop in reverse.
