//! Other limits for a router that runs.

use super::budget::Origins;
use super::flood::{OwnFloods, Verifier};
use super::outflow::Outflow;
use super::{Output, Router, neighbour};
use crate::model::Limits;

impl Router {
    /// Keeps to these limits from now on. What is learned anew anyway is forgotten down to them at
    /// once; peers that are known, links, and what is under way stay, and no more comes.
    pub(super) fn on_limits(&mut self, limits: Limits) {
        let now = self.now.mono;
        for peer in self.directory.shrink(limits.records_max) {
            self.output(Output::Dropped { peer });
        }
        self.routes.shrink(limits.records_max);
        self.seen.shrink(limits.seen_entries_max, limits.seen_lifetime);
        self.flights.shrink(limits.relay_bytes_max);
        self.verifier.pace(Verifier::budget(&limits, now));
        self.own_floods.pace(OwnFloods::budget(&limits, now));
        self.origins = Origins::new(limits.origin_floods_per_second, limits.origin_floods_burst);
        for neighbour in self.neighbours.values_mut() {
            neighbour.floods = neighbour::flood_budget(&limits, now);
            neighbour.founds = neighbour::flood_budget(&limits, now);
            neighbour.outflow.pace(Outflow::budget(&limits, now));
        }
        self.limits = limits;
    }
}
