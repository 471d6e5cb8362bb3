//! The programs as processes: what people and scripts rely on. Each process is killed by a guard
//! when its test ends, however it ends.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod archive;
#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http;
#[cfg(test)]
mod image;
#[cfg(test)]
mod pull;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod start;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod swarm;
#[cfg(test)]
mod tags;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod upkeep;
