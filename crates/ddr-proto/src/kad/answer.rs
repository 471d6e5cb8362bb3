//! Answering peers.
//!
//! Every request gets exactly one reply. Nothing of it is believed before the sender is who the
//! connection proved, its ID solves the puzzles, and every list is within its limit.

use super::records::Kept;
use super::{Kad, Output, Reason, RequestId};
use crate::id::{Key, NodeId, dynamic_puzzle_holds, static_puzzle_holds};
use crate::wire::{
    Contact, MAX_RECORDS_PER_ANSWER, NotSoon, ProviderRecord, RefuseReason, Request,
    RequestEnvelope, Response, WireError,
};

impl Kad {
    pub(super) fn on_request(&mut self, id: RequestId, from: NodeId, envelope: RequestEnvelope) {
        let response = match self.check_envelope(from, &envelope) {
            Ok(()) => {
                self.on_heard(envelope.sender);
                self.answer(from, envelope.body)
            }
            Err((refusal, reason)) => {
                self.report(from, reason);
                Response::Refused { reason: refusal }
            }
        };
        self.outputs.push_back(Output::Reply { id, response });
    }

    fn check_envelope(
        &self,
        from: NodeId,
        envelope: &RequestEnvelope,
    ) -> Result<(), (RefuseReason, Reason)> {
        envelope
            .check_limits()
            .map_err(|error| (RefuseReason::Malformed, Self::limit_reason(error)))?;
        if envelope.sender.id != from {
            return Err((RefuseReason::WrongSender, Reason::WrongSender));
        }
        let (c1, c2) = (self.cfg.static_puzzle_bits, self.cfg.dynamic_puzzle_bits);
        if !static_puzzle_holds(&from, c1) || !dynamic_puzzle_holds(&from, &envelope.puzzle, c2) {
            return Err((RefuseReason::PuzzleUnsolved, Reason::PuzzleUnsolved));
        }
        Ok(())
    }

    fn answer(&mut self, from: NodeId, body: Request) -> Response {
        match body {
            // How many revoked tokens are known only the driver can tell; it fills that in.
            Request::Ping => Response::Pong { revoked: 0, puzzle: self.puzzle },
            Request::FindNode { target } => {
                Response::Nodes { nodes: self.nodes_near(&target, &from) }
            }
            Request::FindProviders { key } => Response::Providers {
                records: self.records_of(&key, &from),
                nodes: self.nodes_near(&key, &from),
            },
            Request::PutProviders { records } => self.store(from, records),
            Request::Compare { range, salt, sums } => self.compare(&from, range, salt, &sums),
            Request::GetRecords { range, salt, marks } => {
                self.records_behind(&from, range, salt, marks)
            }
            Request::GetName { .. }
            | Request::PutName { .. }
            | Request::PrepareName { .. }
            | Request::AcceptName { .. }
            | Request::GetHistory { .. }
            | Request::Resolve { .. }
            | Request::Paused { .. }
            | Request::Members
            | Request::DialMe
            | Request::Time
            | Request::GetSet { .. }
            | Request::PutEntry { .. }
            | Request::Revoked { .. }
            | Request::Preheat(_)
            | Request::Keep { .. }
            | Request::Gone { .. } => Response::Refused { reason: RefuseReason::Unsupported },
        }
    }

    /// The nodes nearest to a point that answered lately, without the one that asks.
    fn nodes_near(&self, target: &Key, asking: &NodeId) -> Vec<Contact> {
        let nearest = self.table.closest(target, self.cfg.k, Some(asking));
        nearest.iter().map(|contact| Contact::clone(contact)).collect()
    }

    /// The own record first, then a random choice of those kept for others.
    fn records_of(&mut self, key: &Key, asking: &NodeId) -> Vec<ProviderRecord> {
        let own = self.publisher.own_record(key, &self.signer, &self.own, self.now);
        let room = MAX_RECORDS_PER_ANSWER - usize::from(own.is_some());
        let others = self.choose_kept(key, room, asking);
        own.into_iter().chain(others).collect()
    }

    fn store(&mut self, from: NodeId, records: Vec<ProviderRecord>) -> Response {
        let (mut accepted, mut not_soon) = (0, Vec::new());
        for (place, record) in records.into_iter().enumerate() {
            // What others say about this node it knows better itself.
            if record.provider.id == self.own.id {
                accepted += 1;
                continue;
            }
            let key = record.key;
            match self.keep(record) {
                Ok(Kept::Yes) => {
                    self.answers.forget(&key);
                    accepted += 1;
                }
                Ok(Kept::No) => {}
                Err(error) => {
                    self.report(from, Reason::BadRecord(error));
                    return Response::Refused { reason: RefuseReason::BadSignature };
                }
            }
            if let Some(wait_ms) = self.records.stay_away_ms(&key, self.now) {
                let wait_s = u16::try_from(wait_ms / 1_000).unwrap_or(u16::MAX);
                not_soon.push(NotSoon { record: place as u8, wait_s });
            }
        }
        self.upkeep.expect_expiry(self.now);
        Response::Stored { accepted, not_soon }
    }

    pub(super) const fn limit_reason(error: WireError) -> Reason {
        match error {
            WireError::OverLimit(limit) => Reason::OverLimit(limit),
            WireError::TooLarge | WireError::Malformed => Reason::OverLimit("MAX_MESSAGE_BYTES"),
        }
    }
}
