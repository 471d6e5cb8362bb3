//! Tests of the pure cores from outside: a swarm of cores on a simulated network, the papers' rules,
//! hostile peers, messages, and names.

mod bench;
mod doubt;
mod hostile;
mod hot;
mod instant;
mod names;
mod net;
mod paper;
mod pieces;
mod posts;
mod promises;
mod puzzles;
mod restore;
mod serve;
mod sets;
mod sizes;
mod small;
mod solo;
mod swarm;
mod sync;
mod wire;
