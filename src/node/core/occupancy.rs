//! How full the node's tables are.

use super::Core;
use crate::model::Occupancy;

impl Core {
    /// Every table that others can fill, and how full it is: for whoever wants to see that nothing
    /// grows without a bound. Right after [`Core::finish`].
    pub fn occupancy(&self) -> Vec<Occupancy> {
        let limits = &self.limits;
        let mut all = self.router.occupancy();
        all.extend(self.courier.occupancy(limits));
        all.extend(self.links.occupancy());
        all.extend(self.peers.occupancy());
        all.extend(self.clients.occupancy(limits.clients_max));
        all.extend(self.listeners.occupancy(limits.clients_max));
        all.extend(self.desk.occupancy());
        all.extend(self.storage.occupancy(limits.records_max));
        all
    }
}
