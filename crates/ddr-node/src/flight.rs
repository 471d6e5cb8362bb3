//! Single flight: the same question asked by many is asked of the network once.
//!
//! The work runs in a task of its own, so a caller that goes away does not take the answer from
//! the others. Answers are not kept: what comes after the answer asks again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type Running<K, V> = Mutex<BTreeMap<K, watch::Receiver<Option<V>>>>;

/// Questions under way. `limit` bounds how many there are at once.
pub(crate) struct Flights<K, V> {
    running: Arc<Running<K, V>>,
    limit: usize,
}

impl<K, V> Flights<K, V>
where
    K: Ord + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// At most `limit` different questions at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self { running: Arc::default(), limit }
    }

    /// The answer to `key`: of the work under way, else of `work`. `None` when the limit is
    /// reached or the work ended without an answer.
    pub(crate) async fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut answer = self.join(key, work)?;
        answer.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Waits for the work of `key` that runs now, if any.
    pub(crate) async fn wait(&self, key: &K) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(mut answer) = running {
            let _ = answer.wait_for(Option::is_some).await;
        }
    }

    fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Option<watch::Receiver<Option<V>>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = running.get(&key) {
            return Some(answer.clone());
        }
        if running.len() >= self.limit {
            return None;
        }
        let (tell, answer) = watch::channel(None);
        running.insert(key.clone(), answer.clone());
        let landing = Landing { running: Arc::clone(&self.running), key };
        let work = work();
        // A runtime that ends drops the task inside `spawn`, and the landing takes this lock.
        drop(running);
        tokio::spawn(async move {
            let value = work.await;
            drop(landing);
            tell.send_replace(Some(value));
        });
        Some(answer)
    }
}

/// Takes the question off the list, also when its work panics.
struct Landing<K: Ord, V> {
    running: Arc<Running<K, V>>,
    key: K,
}

impl<K: Ord, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn many_callers_one_question() {
        let flights = Arc::new(Flights::<u8, u32>::new(4));
        let asked = Arc::new(AtomicUsize::new(0));
        let (open, gate) = oneshot::channel::<()>();
        let first = flights.join(1, || {
            asked.fetch_add(1, Ordering::SeqCst);
            async move {
                gate.await.ok();
                7
            }
        });
        assert!(first.is_some());
        let others: Vec<_> = (0..8)
            .map(|_| {
                let (flights, asked) = (Arc::clone(&flights), Arc::clone(&asked));
                let joined = flights.join(1, || {
                    asked.fetch_add(1, Ordering::SeqCst);
                    async { 8 }
                });
                joined.expect("under the limit")
            })
            .collect();
        open.send(()).expect("the work waits");
        for mut answer in others {
            assert_eq!(*answer.wait_for(Option::is_some).await.expect("answered"), Some(7));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(flights.run(1, || async { 9 }).await, Some(9), "answers are not kept");
    }

    #[test]
    fn a_runtime_that_ends_does_not_lock_the_list() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let (done, joined) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _entered = handle.enter();
            let flights = Flights::<u8, u32>::new(1);
            flights.join(1, || async { 1 });
            done.send(flights.running.lock().expect("unpoisoned").len())
        });
        assert_eq!(joined.recv_timeout(std::time::Duration::from_secs(10)), Ok(0));
    }

    #[tokio::test]
    async fn a_panic_frees_the_question_and_the_limit_holds() {
        let flights = Flights::<u8, u32>::new(1);
        assert_eq!(flights.run(1, || async { panic!("of the test") }).await, None);
        let (_open, gate) = oneshot::channel::<()>();
        let held = flights.join(1, || async move {
            gate.await.ok();
            1
        });
        assert!(held.is_some());
        assert!(flights.join(2, || async { 2 }).is_none(), "limit reached");
    }
}
