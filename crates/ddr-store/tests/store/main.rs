//! The store from outside: behaviour, faults, crashes, damaged directories, and a model.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod behaviour;
mod cost;
mod crash;
mod evict;
mod faults;
mod gc;
mod load;
mod model;
mod outside;
mod partial;
mod power;
mod sets;
mod start;
mod support;
mod verify;
