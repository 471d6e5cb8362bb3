//! Swarms: every node pulls the same content at once, over links of equal rate.
//!
//! Each node runs [`ddr_proto::swarm::Swarm`], the core that is made for `ddrd`; bytes are counted, not
//! moved. All times are multiples of F/b, the time to send the content once over one link.
//! `docs/simulator.md` tells what is modelled.

mod config;
mod copy;
mod deliver;
mod fabric;
mod host;
mod lies;
mod mesh;
mod plain;
mod report;
mod run;

pub use self::config::{SourceDeath, SwarmSetup};
pub use self::mesh::{MeshRules, run_mesh};
pub use self::plain::{block_bound, whole_layers};
pub use self::report::{SwarmReport, Times};
pub use self::run::run_swarm;
