//! What several test programs share.

#![allow(dead_code, reason = "no test program needs all of it")]

pub(crate) mod linearizability;
pub(crate) mod one_by_one;
pub(crate) mod traces;
