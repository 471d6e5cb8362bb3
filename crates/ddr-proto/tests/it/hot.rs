//! Keys with plenty of holders: storing nodes say "not soon", publishers heed it within limits.

use std::collections::BTreeMap;

use ddr_proto::Timestamp;
use ddr_proto::kad::{Input, KadConfig, OpId};
use ddr_proto::wire::{Contact, NotSoon, ProviderRecord, Request, Response};

use crate::net::{START, key};
use crate::solo::{Solo, nothing_for, peer, quiet_config};

const MINUTE_MS: u64 = 60_000;

/// Puts a record of holder `number` that was issued `age_ms` ago; returns what is to wait.
fn put(solo: &mut Solo, number: usize, age_ms: u64) -> Vec<NotSoon> {
    let (signer, holder) = peer(number);
    let issued_ms = solo.now.0 - age_ms;
    let expires_ms = issued_ms + 60 * MINUTE_MS;
    let record = ProviderRecord::sign(&signer, &holder, key(1), true, issued_ms, expires_ms);
    let other = ProviderRecord::sign(&signer, &holder, key(2), true, issued_ms, expires_ms);
    let answer = solo.ask(&holder, Request::PutProviders { records: vec![other, record] });
    let Response::Stored { not_soon, .. } = answer else { panic!("unexpected {answer:?}") };
    not_soon
}

#[test]
fn a_full_key_that_fills_up_quickly_asks_its_holders_to_wait() {
    let cfg = KadConfig { max_holders_per_key: 8, ..quiet_config() };
    let mut solo = Solo::new(cfg.clone());
    for number in 0..7 {
        assert_eq!(put(&mut solo, number, 0), [], "there is room");
    }
    let told = put(&mut solo, 7, 0);
    assert_eq!(told.len(), 2, "both keys are full now");
    assert_eq!(told[1], NotSoon { record: 1, wait_s: 3_600 });

    let mut solo = Solo::new(cfg);
    for number in 0..20 {
        // One in four minutes: no more than is needed to keep eight of them.
        solo.advance_ms(4 * MINUTE_MS);
        assert_eq!(put(&mut solo, number, 0), [], "holder {number}");
    }
}

/// A node that provides `keys`, whose four peers give these hints; when each key was published, and
/// until when its record held.
fn published(
    hours: u64,
    hint: impl Fn(usize, &ProviderRecord) -> Option<u16>,
) -> BTreeMap<u64, Vec<(Timestamp, u64)>> {
    let known: Vec<Contact> = (0..4).map(|number| peer(number).1).collect();
    let mut solo = Solo::with_peers(quiet_config(), &known);
    for number in 0..2 {
        solo.input(Input::Provide { op: OpId(number), key: key(number), complete: true });
    }
    let mut published: BTreeMap<u64, Vec<(Timestamp, u64)>> = BTreeMap::new();
    while solo.now < START.after_ms(hours * 60 * MINUTE_MS) {
        for (call, to, request) in solo.take_calls() {
            let mut response = nothing_for(&request);
            if let Request::PutProviders { records } = &request {
                let peer = known.iter().position(|contact| contact.id == to.id).expect("known");
                let hints = records.iter().enumerate().filter_map(|(place, record)| {
                    hint(peer, record).map(|wait_s| NotSoon { record: place as u8, wait_s })
                });
                let not_soon = hints.collect();
                response = Response::Stored { accepted: records.len() as u32, not_soon };
                for record in records.iter().filter(|_| peer == 0) {
                    let number = u64::from(record.key == key(1));
                    let times = published.entry(number).or_default();
                    times.push((solo.now, record.expires_ms));
                }
            }
            solo.input(Input::Response { call, response });
        }
        solo.advance_ms(1_000);
    }
    published
}

fn never_lapses(times: &[(Timestamp, u64)]) -> bool {
    times.windows(2).all(|pair| pair[1].0.0 < pair[0].1)
}

#[test]
fn a_publisher_passes_a_hot_key_over_and_no_record_lapses() {
    let hot = |_: usize, record: &ProviderRecord| (record.key == key(1)).then_some(3_600);
    let published = published(12, hot);
    let (cold, hot) = (&published[&0], &published[&1]);
    assert!((23..=25).contains(&cold.len()), "every half hour: {}", cold.len());
    assert!((12..=15).contains(&hot.len()), "about every hour: {}", hot.len());
    assert!(never_lapses(cold) && never_lapses(hot));
    assert!(hot.iter().all(|(at, until)| until - at.0 <= 90 * MINUTE_MS));
}

#[test]
fn a_hint_of_few_nodes_or_of_a_short_time_changes_nothing() {
    let few = published(6, |peer, _| (peer < 2).then_some(3_600));
    let short = published(6, |_, _| Some(1_799));
    for times in few.values().chain(short.values()) {
        assert!((11..=13).contains(&times.len()), "{}", times.len());
        assert!(times.iter().all(|(at, until)| until - at.0 <= 60 * MINUTE_MS));
    }
}

#[test]
fn hints_beside_the_question_are_ignored() {
    let known = [peer(0).1];
    let mut solo = Solo::with_peers(quiet_config(), &known);
    let mut puts = 0;
    solo.input(Input::Provide { op: OpId(1), key: key(1), complete: true });
    for _ in 0..3 * 3_600 {
        for (call, _, request) in solo.take_calls() {
            let response = if matches!(request, Request::PutProviders { .. }) {
                puts += 1;
                let hint = |record| NotSoon { record, wait_s: u16::MAX };
                Response::Stored { accepted: 1, not_soon: vec![hint(9), hint(255), hint(1)] }
            } else {
                nothing_for(&request)
            };
            solo.input(Input::Response { call, response });
        }
        solo.advance_ms(1_000);
    }
    assert!((6..=7).contains(&puts), "{puts}");
    assert!(solo.misbehaviour.is_empty());
}
