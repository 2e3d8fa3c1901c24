//! How full the router's tables are.

use super::Router;
use crate::model::Occupancy;

impl Router {
    /// Every table that others can fill, and how full it is; of those that each neighbour has, the
    /// fullest.
    pub fn occupancy(&self) -> Vec<Occupancy> {
        let (links_max, records_max) = (self.limits.links_max, self.limits.records_max);
        let mut all = vec![
            Occupancy::new("neighbours", self.neighbours.len(), links_max),
            Occupancy::new("peers known", self.known.len(), records_max),
            Occupancy::new("router outputs", self.outputs.len(), 0),
            self.own_floods.occupancy(),
            self.notices.occupancy("notices"),
        ];
        all.extend(self.verifier.occupancy(links_max));
        all.extend(self.timers.occupancy(links_max));
        all.extend(self.directory.occupancy(links_max));
        all.extend(self.exchange.occupancy(links_max));
        all.extend(self.routes.occupancy());
        all.extend(self.finds.occupancy());
        all.extend(self.seen.occupancy());
        all.extend(self.origins.occupancy());
        all.extend(self.flood_log.occupancy());
        all.extend(self.reassembly.occupancy());
        all.extend(self.flights.occupancy());
        let queue_bytes_max = self.limits.link_queue_bytes_max;
        let tables = self.neighbours.values().map(|there| there.occupancy(queue_bytes_max));
        all.extend(Occupancy::fullest(tables).into_iter().flatten());
        all
    }
}
