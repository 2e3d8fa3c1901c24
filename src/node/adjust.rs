//! Other settings for a node that runs: first where it listens, which may fail; then all others,
//! which cannot.

use std::path::{Path, PathBuf};

use tokio::sync::oneshot;
use tracing::warn;

use super::core::{Changes, Input};
use super::run::{Adjustable, Node};
use crate::link::{Endpoint, ListenError};
use crate::model::Address;

/// Told whether settings are in use.
type Done = oneshot::Sender<Result<(), ListenError>>;

/// What settings a node runs on, as far as the next ones depend on it.
#[derive(Debug)]
pub(super) struct InUse {
    /// Where they are from, for people.
    file: PathBuf,
    /// What the operator should know of them.
    warnings: Vec<String>,
    /// Why the newest ones were refused.
    refusal: Option<String>,
    /// Those that wait until it is clear where the node listens.
    coming: Option<(Adjustable, Done)>,
    /// Those after them: only the newest.
    next: Option<(Adjustable, Done)>,
}

impl InUse {
    pub(super) const fn new(file: PathBuf) -> Self {
        Self { file, warnings: Vec::new(), refusal: None, coming: None, next: None }
    }

    /// Settings as the core takes them, for a node that listens there. What is new about them that
    /// the operator should know is logged.
    pub(super) fn adopt(&mut self, settings: Adjustable, listening: &[Address]) -> Changes {
        let Adjustable { name, advertise, interface, links_auto, limits, mut warnings, .. } =
            settings;
        let advertise = advertised(advertise, listening, &self.file, &mut warnings);
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            warn!("{warning}");
        }
        self.warnings = warnings;
        let listen = listening.iter().map(ToString::to_string).collect();
        let interface = interface.iter().map(ToString::to_string).collect();
        let warnings = self.all();
        Changes { name, advertise, links_auto, limits, listen, interface, warnings }
    }

    /// All that the operator should know.
    fn all(&self) -> Vec<String> {
        self.refusal.iter().chain(&self.warnings).cloned().collect()
    }
}

impl Node {
    /// Takes on settings, as soon as the node listens where they say.
    pub(super) fn begin_to_adjust(&mut self, to: Adjustable, done: Done) {
        if self.settings.coming.is_some() {
            // Whoever waited for those in between is told when the sender is dropped.
            self.settings.next = Some((to, done));
            return;
        }
        self.endpoint.listen_at(to.listen.clone());
        self.settings.coming = Some((to, done));
    }

    /// The node listens where the settings to come say, or still where it did.
    pub(super) fn on_listening(&mut self, outcome: Result<(), ListenError>) {
        let Some((to, done)) = self.settings.coming.take() else { return };
        if outcome.is_ok() {
            self.server.adopt_limits(&to.limits);
            let changes = self.settings.adopt(to, &listening_of(&self.endpoint));
            self.input(Input::Changes(Box::new(changes)));
        }
        // Who does not want to know any more need not.
        let _ = done.send(outcome);
        if let Some((to, done)) = self.settings.next.take() {
            self.begin_to_adjust(to, done);
        }
    }

    /// Has a refusal among what the operator should know, or no longer.
    pub(super) fn on_reloaded(&mut self, refusal: Option<String>) {
        self.settings.refusal = refusal;
        self.input(Input::Warnings(self.settings.all()));
    }
}

/// Where an endpoint listens.
pub(super) fn listening_of(endpoint: &Endpoint) -> Vec<Address> {
    endpoint.listening().into_iter().map(Address::from).collect()
}

/// What to tell others: what the operator says, else where we listen, if that is an address.
fn advertised(
    advertise: Vec<Address>,
    listening: &[Address],
    file: &Path,
    warnings: &mut Vec<String>,
) -> Vec<Address> {
    if !advertise.is_empty() {
        return advertise;
    }
    let file = file.display();
    let unspecified = |address: &&Address| address.ip().is_some_and(|ip| ip.is_unspecified());
    if listening.iter().any(|address| unspecified(&address)) {
        warnings.push(format!(
            "listening on all addresses, but none is told to others; write advertise = \
             [\"HOST:PORT\"] into {file} so that they can dial this node"
        ));
    } else if listening.iter().all(Address::is_loopback) {
        warnings.push(format!(
            "only this machine can reach this node; to be reachable write listen = \
             [\"HOST:PORT\"] and network = \"open\" or \"closed\" into {file}"
        ));
    }
    listening.iter().filter(|address| !unspecified(address)).cloned().collect()
}
