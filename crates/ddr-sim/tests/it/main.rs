//! Whole networks of the overlay core, small enough for every run of the tests.

mod gate;
mod same;
