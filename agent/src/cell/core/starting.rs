//! Starts: each takes its share of the ledger and its ports, and is written down before it begins.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use celda_api::cell::v1;
use celda_api::cell::v1::outcome::Result as Outcome;
use celda_auction::Resources;

use super::entry::Entry;
use super::turn::Undo;
use super::{Call, Core, Wanted, now_ms};
use crate::cell::instance::Machine;
use crate::cell::journal::{Kept, Message, Record};
use crate::cell::network::NetworkError;
use crate::cell::wish::Wish;
use crate::spec::Network;

/// Reservations as they are when a batch comes.
#[derive(Default)]
struct Held {
    /// Of instances.
    ids: HashSet<u64>,
    /// All of the ledger, with what they take.
    amounts: HashMap<u64, Resources>,
}

impl Held {
    /// Whether a reservation can become an instance's.
    fn check(&self, reservation: u64, wish: &Wish) -> Result<(), String> {
        if self.ids.contains(&reservation) {
            return Err(format!("reservation {reservation} is another instance's: reserve one for each"));
        }
        match self.amounts.get(&reservation) {
            Some(amounts) if !covers(amounts, &wish.resources) => {
                Err(format!("reservation {reservation} holds less than the spec's resources: reserve again"))
            }
            _ => Ok(()), // one that is not there is refused by the ledger
        }
    }
}

/// Bytes that an instance's record has at most, but for its spec's: mostly its names.
const RECORD_BYTES_MAX: u64 = 2 << 10;

impl Call {
    /// Bytes that the journal needs for what this begins; 0: it begins nothing.
    pub(super) fn start_bytes(&self) -> u64 {
        let Self::Start(wanted, _) = self else { return 0 };
        // In base64 a spec is a third longer.
        let of_one =
            |one: &Wanted| one.wish.bytes.len() as u64 * 4 / 3 + one.ids.len() as u64 * RECORD_BYTES_MAX;
        wanted.iter().map(of_one).sum::<u64>().max(1)
    }
}

/// Bytes of all specs that instances have. With [`RECORD_BYTES_MAX`] for each instance this bounds what a journal says; it
/// is a third more there.
const SPECS_BYTES_MAX: usize = 64 << 20;

fn covers(has: &Resources, wants: &Resources) -> bool {
    has.cpu_milli >= wants.cpu_milli
        && has.memory_mib >= wants.memory_mib
        && has.disk_mib >= wants.disk_mib
        && has.containers >= wants.containers
        && has.ports >= wants.ports
}

impl Core {
    /// Answers a start with a refusal, and gives any other call back.
    pub(super) fn refuse_start(&mut self, call: Call, why: &str) -> Option<Call> {
        let Call::Start(wanted, answer) = call else { return Some(call) };
        let refused =
            |id: String| v1::Outcome { id, result: Outcome::Refused.into(), detail: why.to_owned() };
        let outcomes = wanted.into_iter().flat_map(|wanted| wanted.ids).map(refused).collect();
        let before = self.parts.events.last();
        self.turn.answers.push(Box::new(move |_| drop(answer.send((outcomes, before)))));
        None
    }

    fn specs_bytes(&self) -> usize {
        self.wishes.values().map(|wish| wish.bytes.len()).sum()
    }

    /// Begins equal instances, or says of each why not.
    pub(super) fn start_all(&mut self, wanted: Wanted) -> Vec<v1::Outcome> {
        let Wanted { wish, app, first_index, ids, reservations } = wanted;
        let wish = match self.wishes.get(&wish.digest) {
            Some(known) => Arc::clone(known),
            None if self.specs_bytes() + wish.bytes.len() > SPECS_BYTES_MAX => {
                let why = format!(
                    "the specs of the cell's instances would be more than {SPECS_BYTES_MAX} bytes: remove instances that \
                     have ended, or give equal ones one spec"
                );
                let short = |id| v1::Outcome { id, result: Outcome::Short.into(), detail: why.clone() };
                return ids.into_iter().map(short).collect();
            }
            None => {
                let message = Message(prost::Message::encode_to_vec(&wish.message));
                self.record(&Record::Spec { digest: wish.digest.clone(), message });
                let wish = Arc::new(wish);
                self.wishes.insert(wish.digest.clone(), Arc::clone(&wish));
                wish
            }
        };
        let mut held = Held::default();
        if !reservations.is_empty() {
            held.ids = self.entries.values().map(|entry| entry.reservation).collect();
            held.amounts = self.parts.books.reserved();
        }
        let outcomes: Vec<_> = (0..)
            .zip(ids)
            .map(|(offset, id)| {
                let index = first_index.saturating_add(offset);
                let reservation = reservations.get(offset as usize).copied();
                let (result, detail) = self.start_one(&wish, (&app, index, &id), reservation, &mut held);
                v1::Outcome { id, result: result.into(), detail }
            })
            .collect();
        if Arc::strong_count(&wish) == 2 {
            self.wishes.remove(&wish.digest); // nobody took it
        }
        outcomes
    }

    fn start_one(
        &mut self,
        wish: &Arc<Wish>,
        (app, index, id): (&str, u32, &str),
        reservation: Option<u64>,
        held: &mut Held,
    ) -> (Outcome, String) {
        if let Some(entry) = self.entries.get(id) {
            return if entry.removing {
                (Outcome::Refused, "the instance that has this id is being removed: try again".into())
            } else if entry.wish.digest == wish.digest && entry.app == app {
                (Outcome::Already, String::new())
            } else {
                (Outcome::Refused, "another instance has this id: remove it, or take another".into())
            };
        }
        if self.draining {
            return (Outcome::Refused, "the cell drains: start it elsewhere".into());
        }
        if self.entries.len() >= self.parts.config.limits.instances_max as usize && !self.make_room() {
            return (
                Outcome::Short,
                "the cell keeps as many instances as it may: limits.instances_max".into(),
            );
        }
        if (wish.network == Some(Network::Cell) || !wish.ports.is_empty())
            && let Some(why) = self.parts.ground.offer.why_not()
        {
            return (Outcome::Refused, NetworkError::None(why.to_owned()).to_string());
        }
        let reserved = match reservation {
            Some(reservation) => {
                held.check(reservation, wish).and_then(|()| self.parts.books.take_over(reservation))
            }
            None => self.parts.books.reserve(&wish.demand(app)),
        };
        let reservation = match reserved {
            Ok(reservation) => reservation,
            Err(why) => return (Outcome::Short, why),
        };
        let ports = match self.ports.claim(id, &wish.ports) {
            Ok(ports) => ports,
            Err(why) => {
                self.parts.books.release(reservation);
                return (Outcome::Short, why);
            }
        };
        held.ids.insert(reservation);
        let kept = Kept {
            id: id.to_owned(),
            app: app.to_owned(),
            index,
            spec: wish.digest.clone(),
            reservation,
            created_ms: now_ms(),
            removing: false,
            was_up: false,
            ports,
            attached: None,
            machine: Machine::new(wish.policy, now_ms()),
        };
        self.turn.undo.push(Undo::Start(id.to_owned()));
        self.entries.insert(id.to_owned(), Entry::new(kept, Arc::clone(wish)));
        self.changed(id);
        self.turn.accepted.push(id.to_owned());
        (Outcome::Done, String::new())
    }

    /// Forgets the instance that ended first, as soon as that is written down.
    fn make_room(&mut self) -> bool {
        let is_spare = |entry: &Entry| entry.machine.is_over() && !entry.removing;
        let over = self.entries.iter().filter(|(_, entry)| is_spare(entry));
        let oldest = over.min_by_key(|(_, entry)| entry.machine.changed_ms()).map(|(id, _)| id.clone());
        oldest.is_some_and(|id| {
            self.keep_for_undo(&id);
            self.remove_later(&id);
            true
        })
    }
}
