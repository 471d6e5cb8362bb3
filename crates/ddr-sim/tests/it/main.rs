//! Whole networks of the overlay core and swarms of the swarm core, small enough for every run of the tests.

mod copies;
mod gate;
mod names;
mod same;
mod swarm;
