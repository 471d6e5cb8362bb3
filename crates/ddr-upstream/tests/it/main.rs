//! A registry client against small servers on loopback that answer as they are told.

mod addresses;
mod basic;
mod bed;
mod blobs;
mod corpus;
mod docker;
mod manifests;
mod pages;
mod parts;
mod pause;
mod redirects;
#[path = "../../../../fuzz/src/replay.rs"]
mod replay;
mod rights;
mod server;
mod tags;
#[path = "../../../../fuzz/src/events.rs"]
mod targets;
mod times;
mod tls;
mod tokens;
mod uploads;
mod uploads_broken;
