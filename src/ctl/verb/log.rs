//! `log`: how much the daemon logs.

use clap::Args;

use crate::control::protocol::{LogLevel, Request, SetLog};
use crate::ctl::context::Context;
use crate::ctl::exit::{Exit, Stop};
use crate::model::Level;

/// Show how much the daemon logs, or change it
///
/// It counts until the daemon reads its configuration again, or ends.
#[derive(Debug, Args)]
#[command(
    after_help = "The levels, each with all before it: error, warn, info, debug, trace. At its \
    start the daemon may have been given a filter in DISTMSG_LOG instead, which is shown as it is.\
    \n\n\
    Examples:\n  \
    distmsgctl log\n  \
    distmsgctl log debug\n  \
    distmsgctl log info"
)]
pub(crate) struct Log {
    /// Log this and everything more serious
    #[arg(value_name = "LEVEL", value_parser = level())]
    level: Option<Level>,
}

/// Parses a level, and offers all of them where it is completed.
fn level() -> impl clap::builder::TypedValueParser<Value = Level> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    // Each of the words is a level.
    let words = Level::ALL.map(Level::word);
    PossibleValuesParser::new(words).try_map(|word| word.parse::<Level>())
}

pub(crate) async fn run(args: Log, context: &mut Context) -> Result<Exit, Stop> {
    let level = args.level.map(|level| level.word().to_owned());
    let asked = level.is_some();
    let now: LogLevel = context.call(&Request::Log(SetLog { level })).await?;
    if context.json {
        context.out.object(&now);
    } else if !asked {
        context.out.line(&crate::model::escaped(&now.level));
    }
    context.out.flush()?;
    Ok(Exit::Done)
}
