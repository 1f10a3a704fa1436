//! Trace-driven simulation.
