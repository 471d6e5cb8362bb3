//! The same seed gives the same run.

use ddr_sim::{Attack, Churn, Latency, SimConfig, run};

fn config(seed: u64) -> SimConfig {
    SimConfig {
        nodes: 150,
        adversarial: 0.2,
        attack: Attack::SlowLoris,
        churn: Churn::Heavy,
        latency: Latency::World,
        lookups: 300,
        keys: 20,
        loss: 0.01,
        nat: 0.1,
        window_s: 60,
        seed,
        ..SimConfig::default()
    }
}

#[test]
fn one_seed_one_transcript() {
    let runs = [7, 7, 8].map(|seed| run(&config(seed), || 0));
    let text = |number: usize| serde_json::to_string(&runs[number]).expect("JSON");
    assert_eq!(text(0), text(1));
    assert_ne!(runs[0].transcript, runs[2].transcript);
}
