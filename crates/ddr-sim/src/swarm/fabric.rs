//! The network: an uplink and a downlink for each node, a core that never blocks, and messages that
//! take a fixed time and no bandwidth.
//!
//! An uplink serves its transfers in turns of one quantum; a downlink takes what arrives in order. A
//! transfer has at most two quanta on the way, so a slow receiver does not hold up a fast sender.

use std::collections::VecDeque;

use crate::queue::Queue;

/// Nanoseconds of simulated time.
pub(super) type Nanos = u64;

/// A place in the list of transfers.
pub(super) type TransferId = usize;

/// Quanta of one transfer on the way at most.
const CREDIT: u32 = 2;

/// What happens next.
#[derive(Debug)]
pub(super) enum Step<M, T> {
    /// A message arrives, or a node asked to be woken.
    Message(usize, M),
    /// The last byte of a transfer has left its sender.
    Sent(Transfer<T>),
    /// A transfer has arrived as a whole.
    Arrived(Transfer<T>),
}

#[derive(Debug)]
enum Event<M> {
    Message(usize, M),
    UpFree(usize, TransferId, u64),
    Down(TransferId, u64),
}

/// Bytes on their way from one node to another.
#[derive(Clone, Debug)]
pub(super) struct Transfer<T> {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) tag: T,
    bytes: u64,
    left: u64,
    arrived: u64,
    on_the_way: u32,
    waits: bool,
    broken: bool,
}

#[derive(Debug)]
struct Port {
    /// Nanoseconds for 1,000 bytes.
    pace: u64,
    turns: VecDeque<TransferId>,
    busy: bool,
    down_free: Nanos,
    sent: u64,
    received: u64,
    dead: bool,
}

/// The network.
#[derive(Debug)]
pub(super) struct Fabric<M, T> {
    pub(super) now: Nanos,
    latency: Nanos,
    quantum: u64,
    queue: Queue<Event<M>>,
    ports: Vec<Port>,
    transfers: Vec<Option<Transfer<T>>>,
    free: Vec<TransferId>,
}

impl<M, T: Clone> Fabric<M, T> {
    /// A network of nodes with these rates in Mbit/s.
    pub(super) fn new(rates_mbit: &[f64], latency: Nanos, quantum: u64) -> Self {
        let port = |rate: &f64| Port {
            pace: (8_000_000.0 / rate) as u64,
            turns: VecDeque::new(),
            busy: false,
            down_free: 0,
            sent: 0,
            received: 0,
            dead: false,
        };
        Self {
            now: 0,
            latency,
            quantum,
            queue: Queue::default(),
            ports: rates_mbit.iter().map(port).collect(),
            transfers: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Sends a message; it arrives after the latency.
    pub(super) fn message(&mut self, to: usize, message: M) {
        self.queue.push_in_order(self.now + self.latency, Event::Message(to, message));
    }

    /// A message that arrives after this time.
    pub(super) fn later(&mut self, to: usize, wait: Nanos, message: M) {
        self.queue.push(self.now + wait, Event::Message(to, message));
    }

    /// Starts to send `bytes`.
    pub(super) fn send(&mut self, from: usize, to: usize, bytes: u64, tag: T) -> TransferId {
        let (left, arrived) = (bytes, 0);
        let (on_the_way, waits, broken) = (0, false, false);
        let transfer = Transfer { from, to, tag, bytes, left, arrived, on_the_way, waits, broken };
        let id = self.free.pop().unwrap_or_else(|| {
            self.transfers.push(None);
            self.transfers.len() - 1
        });
        self.transfers[id] = Some(transfer);
        self.ports[from].turns.push_back(id);
        self.start_turn(from);
        id
    }

    /// Breaks a transfer off. What is on the way still takes its time on the links.
    pub(super) fn break_off(&mut self, id: TransferId) -> Option<Transfer<T>> {
        let transfer = self.transfers[id].as_mut().filter(|transfer| !transfer.broken)?;
        transfer.broken = true;
        let (from, copy) = (transfer.from, transfer.clone());
        self.ports[from].turns.retain(|other| *other != id);
        self.drop_if_done(id);
        Some(copy)
    }

    /// A node is gone: nothing leaves it or reaches it any more. Its transfers must be broken off.
    pub(super) fn kill(&mut self, node: usize) {
        self.ports[node].dead = true;
    }

    pub(super) fn is_dead(&self, node: usize) -> bool {
        self.ports[node].dead
    }

    /// Bytes that left a node.
    pub(super) fn sent(&self, node: usize) -> u64 {
        self.ports[node].sent
    }

    /// Bytes that reached a node.
    pub(super) fn received(&self, node: usize) -> u64 {
        self.ports[node].received
    }

    /// The next thing that happens, until `end`.
    pub(super) fn step(&mut self, end: Nanos) -> Option<Step<M, T>> {
        loop {
            let (at, event) = self.queue.pop(end)?;
            self.now = at;
            let step = match event {
                Event::Message(to, message) => Some(Step::Message(to, message)),
                Event::UpFree(node, id, bytes) => self.on_up_free(node, id, bytes),
                Event::Down(id, bytes) => self.on_down(id, bytes),
            };
            if step.is_some() {
                return step;
            }
        }
    }

    /// Lets the next transfer of an uplink send one quantum.
    fn start_turn(&mut self, node: usize) {
        let port = &mut self.ports[node];
        if port.busy || port.dead {
            return;
        }
        let Some(id) = port.turns.pop_front() else { return };
        let Some(transfer) = self.transfers[id].as_mut() else { return };
        let bytes = transfer.left.min(self.quantum);
        transfer.left -= bytes;
        transfer.on_the_way += 1;
        port.busy = true;
        port.sent += bytes;
        let takes = bytes * port.pace / 1_000;
        self.queue.push(self.now + takes, Event::UpFree(node, id, bytes));
    }

    fn on_up_free(&mut self, node: usize, id: TransferId, bytes: u64) -> Option<Step<M, T>> {
        self.ports[node].busy = false;
        let mut sent = None;
        if let Some(transfer) = self.transfers[id].as_mut() {
            let port = &mut self.ports[transfer.to];
            // It arrives while it is sent: the later of the two links ends it.
            let takes = bytes * port.pace / 1_000;
            let first_byte = self.now + self.latency - takes.min(self.now);
            port.down_free = port.down_free.max(first_byte) + takes;
            let at = port.down_free.max(self.now + self.latency);
            self.queue.push(at, Event::Down(id, bytes));
            if !transfer.broken {
                if transfer.left == 0 {
                    sent = Some(Step::Sent(transfer.clone()));
                } else if transfer.on_the_way < CREDIT {
                    self.ports[node].turns.push_back(id);
                } else {
                    transfer.waits = true;
                }
            }
        }
        self.start_turn(node);
        sent
    }

    fn on_down(&mut self, id: TransferId, bytes: u64) -> Option<Step<M, T>> {
        let transfer = self.transfers[id].as_mut()?;
        transfer.on_the_way -= 1;
        transfer.arrived += bytes;
        self.ports[transfer.to].received += bytes;
        if transfer.broken {
            self.drop_if_done(id);
            return None;
        }
        if transfer.arrived == transfer.bytes {
            self.free.push(id);
            return self.transfers[id].take().map(Step::Arrived);
        }
        if transfer.waits {
            transfer.waits = false;
            let from = transfer.from;
            self.ports[from].turns.push_back(id);
            self.start_turn(from);
        }
        None
    }

    /// Frees the place of a broken transfer when nothing of it is on the way.
    fn drop_if_done(&mut self, id: TransferId) {
        if self.transfers[id].as_ref().is_some_and(|t| t.broken && t.on_the_way == 0) {
            self.transfers[id] = None;
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two senders to one receiver, 1,000 Mbit/s each: 8 ns a byte.
    #[test]
    fn links_are_shared_and_none_is_faster_than_its_rate() {
        let mut net: Fabric<(), usize> = Fabric::new(&[1_000.0; 3], 1_000, 1_000);
        for from in 0..2 {
            net.send(from, 2, 10_000, from);
        }
        let mut arrivals = Vec::new();
        while let Some(step) = net.step(u64::MAX - 1) {
            if let Step::Arrived(transfer) = step {
                arrivals.push((transfer.tag, net.now));
            }
        }
        // 20,000 bytes take 160 us on the downlink of the receiver, and 1 us on the way.
        assert_eq!(arrivals.last().map(|last| last.1), Some(161_000));
        assert_eq!(net.received(2), 20_000);
    }

    #[test]
    fn a_transfer_that_was_broken_off_does_not_arrive() {
        let mut net: Fabric<(), usize> = Fabric::new(&[1_000.0; 2], 1_000, 1_000);
        let id = net.send(0, 1, 10_000, 0);
        net.later(0, 20_000, ());
        let mut arrived = 0;
        while let Some(step) = net.step(u64::MAX - 1) {
            match step {
                Step::Message(..) => assert!(net.break_off(id).is_some()),
                Step::Arrived(_) => arrived += 1,
                Step::Sent(_) => panic!("it was broken off"),
            }
        }
        assert_eq!((arrived, net.break_off(id).is_some()), (0, false));
        assert!(net.received(1) < 10_000);
    }
}
