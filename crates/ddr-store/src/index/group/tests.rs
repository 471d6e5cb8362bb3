#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use super::*;
use crate::disk::{Disk, FaultyDisk, Operation};
use crate::index::{Index, SETTINGS};
use redb::ReadableTable;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn index() -> (FaultyDisk, Index) {
    let disk = FaultyDisk::new();
    let index = Index::open(Arc::new(disk.clone()), PathBuf::from("/index.redb")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, index)
}

fn set(index: &Index, key: &str) -> Result<(), IndexError> {
    index.set_setting(key, b"value")
}

fn has(index: &Index, key: &str) -> bool {
    index.get_setting(key).unwrap().is_some()
}

/// Holds all writers back until `count` are there, and then lets them go at once.
fn gathered<'a>(index: &Index, jobs: Vec<Box<dyn FnOnce() + Send + 'a>>) {
    index.group.lock().committing = true;
    let count = jobs.len();
    let since = Instant::now();
    std::thread::scope(|scope| {
        for job in jobs {
            scope.spawn(job);
        }
        while index.group.coming.load(Ordering::SeqCst) < count {
            assert!(since.elapsed() < PATIENCE, "not all writers came");
            std::thread::yield_now();
        }
        index.group.lock().committing = false;
        index.group.changed.notify_all();
    });
    let state = index.group.lock();
    assert!(state.open.is_none() && !state.committing && state.alone == 0, "{state:?}");
    assert_eq!(index.group.coming.load(Ordering::SeqCst), 0);
}

fn syncs(recorded: &[Operation]) -> usize {
    recorded.iter().filter(|o| matches!(o, Operation::Sync(_))).count()
}

/// Syncs of one change by itself.
fn syncs_alone() -> usize {
    let (disk, index) = index();
    set(&index, "first").unwrap();
    disk.record();
    set(&index, "second").unwrap();
    syncs(&disk.recorded())
}

#[test]
fn those_who_come_together_share_one_sync_up_to_the_limit() {
    let one = syncs_alone();
    assert_eq!(one, 1, "a change costs one sync");
    for (writers, transactions) in [(2, 1), (MAX_GROUP, 1), (MAX_GROUP + 1, 2)] {
        let (disk, index) = index();
        disk.record();
        let index = &index;
        let jobs = (0..writers).map(|n| {
            let job = move || set(index, &format!("key {n}")).unwrap();
            Box::new(job) as Box<dyn FnOnce() + Send>
        });
        gathered(index, jobs.collect());
        assert_eq!(syncs(&disk.recorded()), transactions * one, "{writers} writers");
        disk.power_cut(0);
        let again = Index::open(Arc::new(disk.clone()), PathBuf::from("/index.redb")).unwrap();
        assert!((0..writers).all(|n| has(&again, &format!("key {n}"))), "all are durable");
    }
}

#[test]
fn a_job_that_fails_leaves_nothing_and_its_neighbours_are_stored() {
    for failing in 1..4 {
        let (_, index) = index();
        let index = &index;
        let jobs = (0..12).map(|n| {
            let job = move || {
                let result = index.write(|t| {
                    t.open_table(SETTINGS)?.insert(format!("key {n}").as_str(), &b"x"[..])?;
                    if n < failing { Err(IndexError::DigestMismatch) } else { Ok(n) }
                });
                match result {
                    Ok(value) => assert_eq!(value, n),
                    Err(error) => assert!(n < failing, "{error}"),
                }
            };
            Box::new(job) as Box<dyn FnOnce() + Send>
        });
        gathered(index, jobs.collect());
        for n in 0..12 {
            assert_eq!(has(index, &format!("key {n}")), n >= failing, "key {n} of {failing}");
        }
    }
}

#[test]
fn a_job_never_fails_over_what_a_neighbour_has_not_made_durable() {
    // "second" fails where "first" is there. In company it may see it before it is durable; the
    // answer must then come from a run of its own.
    let (_, index) = index();
    let index = &index;
    let first = move || set(index, "first").unwrap();
    let second = move || {
        let result = index.write(|t| {
            let there = t.open_table(SETTINGS)?.get("first")?.is_some();
            if there { Err(IndexError::DigestMismatch) } else { Ok(()) }
        });
        assert_eq!(result.is_err(), has(index, "first") && result.is_err());
    };
    gathered(index, vec![Box::new(first), Box::new(second)]);
    assert!(has(index, "first"));
}

#[test]
fn a_job_that_panics_takes_nobody_with_it() {
    let (_, index) = index();
    let index = &index;
    let jobs = (0..8).map(|n| {
        let job = move || {
            let run = AssertUnwindSafe(|| {
                index.write(|t| {
                    t.open_table(SETTINGS)?.insert(format!("key {n}").as_str(), &b"x"[..])?;
                    assert!(n != 3, "on purpose");
                    Ok(())
                })
            });
            assert_eq!(catch_unwind(run).is_err(), n == 3);
        };
        Box::new(job) as Box<dyn FnOnce() + Send>
    });
    gathered(index, jobs.collect());
    assert!((0..8).all(|n| has(index, &format!("key {n}")) == (n != 3)));
}

#[test]
fn a_full_disk_fails_who_is_too_large_and_not_the_small_ones() {
    let (disk, index) = index();
    set(&index, "before").unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 200_000));
    let index = &index;
    let large = vec![7; 900_000];
    let jobs = (0..6).map(|n| {
        let large = &large;
        let job = move || {
            let result = if n == 2 {
                index.set_setting("large", large)
            } else {
                set(index, &format!("key {n}"))
            };
            assert_eq!(matches!(result, Err(IndexError::NoSpace)), n == 2, "{n}: {result:?}");
        };
        Box::new(job) as Box<dyn FnOnce() + Send>
    });
    gathered(index, jobs.collect());
    assert!((0..6).all(|n| has(index, &format!("key {n}")) == (n != 2)));
    assert!(!has(index, "large"));
}

#[test]
fn a_failed_operation_at_any_point_of_a_group_loses_nothing_acknowledged() {
    for after in 0.. {
        let (disk, index) = index();
        set(&index, "before").unwrap();
        let start = disk.operations();
        disk.fail_after(Some(after));
        let stored = Mutex::new(Vec::new());
        let jobs = (0..5).map(|n| {
            let (index, stored) = (&index, &stored);
            let job = move || {
                let key = format!("key {n}");
                if set(index, &key).is_ok() {
                    stored.lock().unwrap().push(key);
                }
            };
            Box::new(job) as Box<dyn FnOnce() + Send>
        });
        gathered(&index, jobs.collect());
        let ended = disk.operations() - start <= after;
        disk.fail_after(None);
        set(&index, "after").unwrap();
        drop(index);
        disk.power_cut(0);
        let again = Index::open(Arc::new(disk.clone()), PathBuf::from("/index.redb")).unwrap();
        for key in stored.lock().unwrap().iter().map(String::as_str).chain(["before", "after"]) {
            assert!(has(&again, key), "operation {after}: {key} was acknowledged");
        }
        if ended {
            assert!(after > 3, "the group did less than it should");
            return;
        }
    }
}
