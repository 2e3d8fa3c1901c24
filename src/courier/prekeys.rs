//! Our own prekeys: a new one each day, erased after eight.

use std::collections::{BTreeMap, VecDeque};

use super::{Change, Output};
use crate::crypto::{PrekeySecret, Random};
use crate::model::limits::{CLOCK_SKEW_MAX, MESSAGE_LIFETIME_MAX, PREKEY_LIFETIME, ROTATION};
use crate::model::{Monotonic, Now, Occupancy, Prekey, PrekeyId, PrekeyRow, Span, Timestamp};

/// How often to look whether a rotation is due; calendar time may jump, so a deadline a day ahead
/// on the monotonic clock is no good.
const CHECK_INTERVAL: Span = Span::from_secs(600);

/// Prekeys kept at most: a clock that jumps to and fro must not grow them without bound.
const PREKEYS_MAX: usize = 64;

#[derive(Debug)]
struct Own {
    secret: PrekeySecret,
    created: Timestamp,
}

/// Our prekeys by ID.
#[derive(Debug)]
pub(super) struct Prekeys {
    own: BTreeMap<PrekeyId, Own>,
    /// The one that others should use.
    current: PrekeyId,
    /// Its public half as published; deriving it costs a key generation.
    published: Vec<Prekey>,
    next_check: Monotonic,
}

impl Prekeys {
    pub(super) fn new(
        rows: &[PrekeyRow],
        now: Now,
        random: &mut Random,
        out: &mut VecDeque<Output>,
    ) -> Self {
        let own = rows
            .iter()
            .map(|row| {
                let secret = PrekeySecret::from_seed(row.id, row.secret.clone());
                (row.id, Own { secret, created: row.created })
            })
            .collect::<BTreeMap<_, _>>();
        let newest = own.iter().max_by_key(|(_, own)| own.created).map(|(id, _)| *id);
        let mut prekeys = Self {
            own,
            current: newest.unwrap_or(PrekeyId(0)),
            published: Vec::new(),
            next_check: Monotonic::START,
        };
        prekeys.publish();
        prekeys.tick(now, random, out);
        prekeys
    }

    /// The private half of a prekey that is not expired.
    pub(super) fn secret(&self, id: PrekeyId, now: Now) -> Option<&PrekeySecret> {
        let own = self.own.get(&id)?;
        (now.wall < own.created + PREKEY_LIFETIME).then_some(&own.secret)
    }

    pub(super) fn published(&self) -> Vec<Prekey> {
        self.published.clone()
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("own prekeys", self.own.len(), PREKEYS_MAX)
    }

    pub(super) const fn deadline(&self) -> Monotonic {
        self.next_check
    }

    pub(super) fn tick(&mut self, now: Now, random: &mut Random, out: &mut VecDeque<Output>) {
        if now.mono < self.next_check {
            return;
        }
        self.next_check = now.mono + CHECK_INTERVAL;
        let mut changes = self.erase_old(now);
        // A current prekey from the future means that the clock went back: it is as good as old.
        let due = self.own.get(&self.current).is_none_or(|own| {
            now.wall >= own.created + ROTATION || own.created > now.wall + CLOCK_SKEW_MAX
        });
        if due {
            changes.push(self.rotate(now, random));
        }
        if !changes.is_empty() {
            out.push_back(Output::StorePrekeys(changes));
        }
        if due {
            self.publish();
            out.push_back(Output::Prekeys);
        }
    }

    fn erase_old(&mut self, now: Now) -> Vec<Change> {
        let surplus = self.own.len().saturating_sub(PREKEYS_MAX - 1);
        let mut ages: Vec<_> = self.own.iter().map(|(id, own)| (own.created, *id)).collect();
        ages.sort_unstable();
        let over = |(at, (created, _)): &(usize, (Timestamp, PrekeyId))| {
            now.wall >= *created + PREKEY_LIFETIME || *at < surplus
        };
        let old = ages.into_iter().enumerate().filter(over).map(|(_, (_, id))| id);
        old.inspect(|id| {
            self.own.remove(id);
        })
        .map(Change::DropPrekey)
        .collect()
    }

    fn rotate(&mut self, now: Now, random: &mut Random) -> Change {
        let id = loop {
            let id = PrekeyId(u32::from_be_bytes(random.bytes()));
            if !self.own.contains_key(&id) {
                break id;
            }
        };
        let secret = PrekeySecret::generate(id, random);
        let row = PrekeyRow { id, secret: secret.seed().clone(), created: now.wall };
        self.own.insert(id, Own { secret, created: now.wall });
        self.current = id;
        Change::Prekey(Box::new(row))
    }

    fn publish(&mut self) {
        self.published = self
            .own
            .get(&self.current)
            .map(|own| Prekey {
                id: self.current,
                // The private half outlives it by a day: what was sealed at the last moment still
                // arrives.
                expires: own.created + MESSAGE_LIFETIME_MAX,
                public: own.secret.public().to_vec().into(),
            })
            .into_iter()
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> Now {
        let micros = Span::from_secs(days * 86_400).as_micros();
        Now {
            mono: Monotonic::from_micros(micros),
            wall: Timestamp::from_millis(1_000_000_000_000 + micros / 1_000),
        }
    }

    #[test]
    fn a_prekey_is_made_daily_and_erased_after_eight_days() {
        let (mut random, mut out) = (Random::from_seed([1; 32]), VecDeque::new());
        let mut prekeys = Prekeys::new(&[], at(0), &mut random, &mut out);
        let first = prekeys.published()[0].id;
        assert_eq!(out.len(), 2, "stored and announced");
        prekeys.tick(at(1), &mut random, &mut out);
        assert_ne!(prekeys.published()[0].id, first);
        assert!(prekeys.secret(first, at(7)).is_some());
        assert!(prekeys.secret(first, at(8)).is_none(), "expired even before it is erased");
        for day in 2..=8 {
            prekeys.tick(at(day), &mut random, &mut out);
        }
        let erased = out.iter().any(|output| {
            matches!(output, Output::StorePrekeys(c) if c.contains(&Change::DropPrekey(first)))
        });
        assert!(erased && !prekeys.own.contains_key(&first));
    }

    #[test]
    fn stored_prekeys_go_on_being_used() {
        let (mut random, mut out) = (Random::from_seed([1; 32]), VecDeque::new());
        let rows = [PrekeyRow {
            id: PrekeyId(5),
            secret: zeroize::Zeroizing::new([1; 32]),
            created: at(0).wall,
        }];
        let prekeys = Prekeys::new(&rows, at(0), &mut random, &mut out);
        assert_eq!(prekeys.published()[0].id, PrekeyId(5));
        assert!(out.is_empty());
    }
}
