//! Whole nodes on the memory network: push, pull, names, faults.

mod absent;
mod bed;
mod bootstrap;
mod churn;
mod copies;
mod driver;
mod evict;
mod faults;
mod gate;
mod hostile;
mod lists;
mod mirror;
mod names;
mod place;
mod preheat;
mod pull;
mod push;
mod reach;
mod registry;
mod stranger;
mod swarm;
mod tags;
mod upkeep;
