//! Tests of the pure cores from outside: a swarm of cores on a simulated network, the papers' rules,
//! hostile peers, messages, and names.

mod doubt;
mod hostile;
mod hot;
mod instant;
mod names;
mod net;
mod paper;
mod puzzles;
mod restore;
mod sets;
mod solo;
mod swarm;
mod sync;
mod wire;
