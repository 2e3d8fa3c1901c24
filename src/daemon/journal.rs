//! The journal: each event with its fields, so that `journalctl DISTMSG_PEER=dm1...` finds what
//! concerns a peer.
//!
//! An event's text reads as it would on a terminal, fields included, for whoever only reads the
//! text. A thread hands events over, so that a journal that does not read holds up nobody.

use std::fmt::{self, Write as _};
use std::io;

use tracing::field::{Field, Value, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Event, Metadata, Subscriber, warn};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::outlet::{LOGGED_WAITING_MAX, Outlet, one_line};

/// What fields begin with: `peer` is `DISTMSG_PEER` in the journal.
const PREFIX: &str = "DISTMSG";
/// The name by which `journalctl -t` finds all of it.
const IDENTIFIER: &str = "distmsg";
/// Fields of one event; what is beyond is left out.
const FIELDS_MAX: usize = 32;
/// The field that is the text.
const MESSAGE: &str = "message";

/// Where events go in.
#[derive(Debug, Clone)]
pub(super) struct Journal(Outlet<Said>);

/// One event, kept until it is handed over.
#[derive(Debug)]
struct Said {
    metadata: &'static Metadata<'static>,
    fields: Vec<(Field, String)>,
}

impl Journal {
    /// Connects with the journal of this machine.
    ///
    /// # Errors
    /// When there is none, or the system has no thread left.
    pub(super) fn start() -> io::Result<Self> {
        let priorities = PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        };
        let journal = tracing_journald::layer()?
            .with_field_prefix(Some(PREFIX.to_owned()))
            .with_syslog_identifier(IDENTIFIER.to_owned())
            .with_priority_mappings(priorities);
        // What is handed over was let through before. Here everything counts as switched off, so
        // that nothing is prepared for being logged on this way's behalf.
        let registry = tracing_subscriber::registry().with(journal).with(LevelFilter::OFF);
        let dispatch = Dispatch::new(registry);
        let outlet = Outlet::start("journal", LOGGED_WAITING_MAX, move |said: Said, lost| {
            if lost > 0 {
                warn!(lost, "events were lost: the journal did not read them");
            }
            said.hand_over(&dispatch);
        })?;
        Ok(Self(outlet))
    }

    /// Waits until what was said is handed over, but not for long.
    pub(super) fn finish(&self) {
        self.0.finish();
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.say(Said { metadata: event.metadata(), fields: fields.with_whole_text() });
    }
}

impl Said {
    fn hand_over(&self, dispatch: &Dispatch) {
        let Some((first, _)) = self.fields.first() else { return };
        let mut values: [(&Field, Option<&dyn Value>); FIELDS_MAX] = [(first, None); FIELDS_MAX];
        let texts: Vec<&str> = self.fields.iter().map(|(_, text)| &**text).collect();
        for ((place, (field, _)), text) in values.iter_mut().zip(&self.fields).zip(&texts) {
            *place = (field, Some(text));
        }
        let values = self.metadata.fields().value_set(&values);
        dispatch.event(&Event::new(self.metadata, &values));
    }
}

/// An event's fields as text.
#[derive(Default)]
struct Fields(Vec<(Field, String)>);

impl Fields {
    /// The text says all that the fields say.
    fn with_whole_text(self) -> Vec<(Field, String)> {
        let mut fields = self.0;
        let mut others = String::new();
        for (field, value) in fields.iter().filter(|(field, _)| field.name() != MESSAGE) {
            // Writing to a string cannot fail.
            let _ = write!(others, " {}={value}", field.name());
        }
        if let Some((_, text)) = fields.iter_mut().find(|(field, _)| field.name() == MESSAGE) {
            text.push_str(&others);
            *text = one_line(text);
        }
        fields
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.clone(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.clone(), format!("{value:?}")));
    }
}
