//! Tests of the pure cores from outside: a swarm of cores on a simulated network, the papers' rules,
//! hostile peers, messages, and names.

mod hostile;
mod names;
mod net;
mod paper;
mod restore;
mod sets;
mod solo;
mod swarm;
mod wire;
