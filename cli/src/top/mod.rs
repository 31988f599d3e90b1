//! `top`: what an installation does right now, looked at every second.
//!
//! The numbers are the coordinators' own metrics, asked for over NATS ([`reading`]); what they mean is
//! decided in [`board`], by pure functions; [`screen`] draws them.

mod board;
mod reading;
mod screen;

pub(crate) use board::Panel;

use crate::{
    arguments::{Output, TopArguments, ViewArguments},
    connection::Connection,
    exit::Exit,
    render,
    trouble::Trouble,
};
use board::Board;
use reading::Reading;
use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _},
    time::Duration,
};

/// Rates and latencies are those of so long.
const WINDOW: Duration = Duration::from_secs(10);

/// Shows it until a person has seen enough, or once.
pub(crate) async fn top(
    connection: &Connection,
    view: ViewArguments,
    arguments: &TopArguments,
) -> Result<Exit, Trouble> {
    let is_json = view.output == Output::Json;
    if arguments.once || is_json || !io::stdout().is_terminal() {
        let first = reading::take(connection).await?;
        tokio::time::sleep(arguments.interval).await;
        let board = Board::between(&first, &reading::take(connection).await?);
        let text = if is_json {
            serde_json::to_string_pretty(&board).map_err(|error| Trouble::Write(error.into()))?
                + "\n"
        } else {
            render::board(&board.headline(), &board.panels())
        };
        render::print(&text)?;
        return Ok(Exit::Done);
    }
    let mut terminal = ratatui::try_init().map_err(Trouble::Write)?;
    let watched = watch(connection, arguments.interval, &mut terminal).await;
    ratatui::restore();
    watched.map(|()| Exit::Done)
}

async fn watch(
    connection: &Connection,
    interval: Duration,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<(), Trouble> {
    let mut readings: VecDeque<Reading> = VecDeque::from([reading::take(connection).await?]);
    loop {
        let newest = reading::take(connection).await?;
        while readings.len() > 1 && readings[1].at + WINDOW < newest.at {
            readings.pop_front();
        }
        let board = Board::between(&readings[0], &newest);
        readings.push_back(newest);
        let (headline, panels) = (board.headline(), board.panels());
        terminal
            .draw(|frame| screen::draw(frame, &headline, &panels))
            .map_err(Trouble::Write)?;
        if screen::is_left_within(interval)
            .await
            .map_err(Trouble::Write)?
        {
            return Ok(());
        }
    }
}
