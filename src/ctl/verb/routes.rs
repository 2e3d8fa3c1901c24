//! `routes`: the ways that were learned.

use std::time::Duration;

use clap::Args;

use crate::control::protocol::{Page, Request, Route, RoutesPage};
use crate::ctl::context::{Context, answered};
use crate::ctl::exit::{Exit, Stop};
use crate::ctl::output::chat;
use crate::ctl::table::Table;
use crate::ctl::text;
use crate::model::escaped;

/// List the routes learned: to whom, by which neighbours, how well
#[derive(Debug, Args)]
#[command(
    after_help = "Routes are learned when they are needed, at most three for one destination, \
    the best first. The score is the share of envelopes whose receipt came back.\n\n\
    Examples:\n  distmsgctl routes\n  distmsgctl routes --json"
)]
pub(crate) struct Routes {}

pub(crate) async fn run(_: Routes, context: &mut Context) -> Result<Exit, Stop> {
    let (client, _events) = context.connect().await?;
    let mut table = Table::new(["DESTINATION", "BY", "HOPS", "SCORE", "RECEIPTS", "AGE"]);
    let mut page = Page::default();
    let mut listed = false;
    loop {
        let RoutesPage { routes, next } =
            answered(Duration::ZERO, client.call(&Request::Routes(page))).await?;
        listed |= !routes.is_empty();
        if context.json {
            routes.iter().for_each(|route| context.out.object(route));
        } else if !routes.is_empty() {
            let whole: Vec<_> = routes.iter().flat_map(|route| rows(route, escaped)).collect();
            if table.fits(&whole, context.out.columns) {
                table.write(&whole, &mut context.out);
            } else {
                let cut = |id: &str| text::short_id(&escaped(id));
                let short: Vec<_> = routes.iter().flat_map(|route| rows(route, cut)).collect();
                table.write(&short, &mut context.out);
            }
        }
        context.out.flush()?;
        let Some(next) = next else { break };
        page = Page { after: Some(next), limit: None };
    }
    if !listed && !context.json {
        chat("no routes yet; they are learned when something is sent");
    }
    Ok(Exit::Done)
}

/// A row for each way, the IDs of who has no alias shown by `show`.
fn rows(route: &Route, show: impl Fn(&str) -> String) -> Vec<[String; 6]> {
    let label = |alias: &Option<String>, id: &str| match alias {
        Some(alias) => escaped(alias),
        None => show(id),
    };
    let row = |hop: &crate::control::protocol::NextHop| {
        [
            label(&route.alias, &route.destination),
            label(&hop.alias, &hop.peer),
            hop.hops.to_string(),
            format!("{:.2}", hop.score),
            hop.receipts.to_string(),
            text::ago(hop.age_s),
        ]
    };
    route.next_hops.iter().map(row).collect()
}
