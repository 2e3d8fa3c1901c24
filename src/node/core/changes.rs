//! Other settings for a node that runs.

use super::{Changes, Core};
use crate::model::Now;
use crate::router;

impl Core {
    /// Takes them on. Nothing that was accepted is lost by it, no link ends, and others hear of
    /// ourselves only what has changed.
    pub(super) fn on_changes(&mut self, now: Now, changes: Changes) {
        let Changes { name, advertise, links_auto, limits, listen, interface, warnings } = changes;
        self.links.adopt(links_auto, limits.links_max, now);
        self.desk.adopt_limits(&limits);
        self.courier.adopt_limits(&limits);
        self.router.handle(now, router::Input::Limits(Box::new(limits.clone())));
        self.limits = limits;
        self.clients.about.listen = listen;
        self.clients.about.interface = interface;
        self.clients.about.warnings = warnings;
        if self.record.describe(name, advertise) {
            self.renew_record(now);
        }
    }
}
