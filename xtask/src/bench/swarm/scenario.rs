//! What happens in each scenario: who starts when, whose link is slow, who dies.

use std::time::Duration;

use clap::ValueEnum;

use crate::e2e::Random;

/// Size of each layer of an image, and how many it has.
pub(super) const LAYER_MIB: usize = 4;
const LAYERS: usize = 8;
/// The starts of a rolling pull are spread over this part of F/b.
const SPREAD: f64 = 0.5;
/// Which part of the nodes dies, and when, as a part of F/b.
const DYING: f64 = 0.3;
const DYING_AFTER: f64 = 0.5;
/// Which part of the nodes sends wrong bytes.
const LYING: f64 = 0.3;
/// Which part of the nodes has a slow link.
const SLOW: f64 = 0.1;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// One client, docker-registry: what a shaped link alone gives
    Link,
    /// All nodes start together
    All,
    /// Starts spread over half of F/b
    Rolling,
    /// The source is killed when it has sent as many copies as --dies-after says
    SourceDies,
    /// 30 % of the nodes are killed at half of F/b; figures of the others
    ThirdDies,
    /// A tenth of the nodes, at least one, has a link ten times slower; figures of both kinds
    SlowTenth,
    /// 30 % of the nodes have the blob and send wrong bytes of it; figures of the others
    Liars,
    /// An image of 8 layers of 4 MiB, three at a time, as docker pulls it
    Image,
    /// All clients pull from docker-registry in the place of the source
    DockerRegistry,
}

/// One scenario with its numbers. Nodes are counted without the source.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    /// F/b.
    pub(super) file_time: Duration,
    /// When each client starts; those of liars do not.
    pub(super) delays: Vec<Duration>,
    /// Nodes with slow links.
    pub(super) slow: Vec<usize>,
    /// How many nodes beside those with a client send wrong bytes.
    pub(super) liars: usize,
    pub(super) fault: Fault,
}

/// Who is killed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The source, when its interface has sent so many bytes.
    Source {
        after_bytes: u64,
    },
    /// Nodes that pull.
    Pullers {
        which: Vec<usize>,
        after: Duration,
    },
}

impl Scenario {
    /// As a user types it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Layers of its image; none where the blob of the command line is pulled.
    pub(super) fn layers(self) -> usize {
        if self == Self::Image { LAYERS } else { 0 }
    }
}

impl Plan {
    /// The plan for `nodes` nodes; a source that is to die does when it has sent `mark_bytes`.
    pub(super) fn new(
        scenario: Scenario,
        nodes: usize,
        mark_bytes: u64,
        file_time: Duration,
        random: &mut Random,
    ) -> Self {
        let nodes = if scenario == Scenario::Link { 1 } else { nodes };
        let mut plan = Self {
            scenario,
            file_time,
            delays: vec![Duration::ZERO; nodes],
            slow: Vec::new(),
            liars: 0,
            fault: Fault::None,
        };
        match scenario {
            Scenario::Rolling => {
                let step = file_time.mul_f64(SPREAD / (nodes - 1) as f64);
                plan.delays = (0..nodes).map(|n| step.mul_f64(n as f64)).collect();
            }
            Scenario::SourceDies => plan.fault = Fault::Source { after_bytes: mark_bytes },
            Scenario::ThirdDies => {
                let which = random.distinct(part(nodes, DYING), nodes);
                plan.fault = Fault::Pullers { which, after: file_time.mul_f64(DYING_AFTER) };
            }
            Scenario::SlowTenth => plan.slow = random.distinct(part(nodes, SLOW), nodes),
            Scenario::Liars => {
                plan.liars = part(nodes, LYING);
                plan.delays.truncate(nodes - plan.liars);
            }
            Scenario::Link | Scenario::All | Scenario::Image | Scenario::DockerRegistry => {}
        }
        plan
    }

    /// Names and nodes of the groups whose figures are told apart.
    pub(super) fn groups(&self) -> Vec<(String, Vec<usize>)> {
        let name = self.scenario.name();
        let all = 0..self.delays.len();
        if !self.slow.is_empty() {
            let (slow, fast) = all.partition(|node| self.slow.contains(node));
            return vec![(format!("{name}, the fast"), fast), (format!("{name}, the slow"), slow)];
        }
        let dead: &[usize] = match &self.fault {
            Fault::Pullers { which, .. } => which,
            _ => &[],
        };
        vec![(name, all.filter(|node| !dead.contains(node)).collect())]
    }
}

/// This part of the nodes, at least one.
fn part(nodes: usize, of_all: f64) -> usize {
    ((nodes as f64 * of_all).round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_TIME: Duration = Duration::from_secs(10);

    fn plan(scenario: Scenario) -> Plan {
        Plan::new(scenario, 12, 1000, FILE_TIME, &mut Random::new(1))
    }

    #[test]
    fn starts_are_spread_over_half_of_the_file_time() {
        let delays = plan(Scenario::Rolling).delays;
        assert_eq!((delays.len(), delays[0]), (12, Duration::ZERO));
        assert!((delays[11].as_secs_f64() - 5.0).abs() < 1e-6);
        assert!(plan(Scenario::All).delays.iter().all(Duration::is_zero));
    }

    #[test]
    fn the_dead_have_no_figures() {
        let plan = plan(Scenario::ThirdDies);
        let groups = plan.groups();
        let Fault::Pullers { which, after } = &plan.fault else { panic!("nobody dies") };
        assert_eq!((which.len(), *after), (4, Duration::from_secs(5)));
        assert_eq!((groups.len(), groups[0].1.len()), (1, 8));
        assert!(which.iter().all(|dead| !groups[0].1.contains(dead)));
    }

    #[test]
    fn liars_have_no_clients() {
        let plan = plan(Scenario::Liars);
        assert_eq!((plan.liars, plan.delays.len(), plan.groups()[0].1.len()), (4, 8, 8));
    }

    #[test]
    fn the_slow_are_told_apart() {
        let groups = plan(Scenario::SlowTenth).groups();
        let sizes: Vec<usize> = groups.iter().map(|(_, nodes)| nodes.len()).collect();
        assert_eq!(sizes, [11, 1]);
    }

    #[test]
    fn the_source_dies_after_its_bytes() {
        assert_eq!(plan(Scenario::SourceDies).fault, Fault::Source { after_bytes: 1000 });
    }
}
