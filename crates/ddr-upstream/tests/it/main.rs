//! A registry client against small servers on loopback that answer as they are told.

mod addresses;
mod basic;
mod bed;
mod blobs;
mod docker;
mod manifests;
mod pause;
mod redirects;
mod server;
mod tags;
mod times;
mod tls;
mod tokens;
mod uploads;
