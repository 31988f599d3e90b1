//! The board on a terminal.

use super::Panel;
use ratatui::{
    Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    widgets::{Block, Borders, Cell, Paragraph, Row, Table},
};
use std::{
    io,
    time::{Duration, Instant},
};

/// How often keys are looked for.
const KEYS_INTERVAL: Duration = Duration::from_millis(50);
/// Lines of a panel beside its rows: its border and its header.
const AROUND: usize = 2;

/// Draws it. A panel that does not fit loses its last rows.
pub(super) fn draw(frame: &mut Frame<'_>, headline: &str, panels: &[Panel]) {
    let heights = panels.iter().map(|panel| {
        let lines = panel.rows.len() + AROUND;
        Constraint::Max(u16::try_from(lines).unwrap_or(u16::MAX))
    });
    let heights = std::iter::once(Constraint::Length(1)).chain(heights);
    let areas = Layout::vertical(heights.chain([Constraint::Min(0)])).split(frame.area());
    let title = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(
        Paragraph::new(format!("{headline} · q quits")).style(title),
        areas[0],
    );
    for (panel, area) in panels.iter().zip(&areas[1..]) {
        let dimmed = Style::new().add_modifier(Modifier::DIM);
        let rows = panel.rows.iter().map(|(cells, is_urgent)| {
            let style = if *is_urgent {
                Style::new().fg(Color::Red)
            } else {
                Style::new()
            };
            Row::new(cells.iter().map(|cell| Cell::new(cell.as_str()))).style(style)
        });
        let table = Table::new(rows, widths(panel))
            .header(Row::new(panel.columns.iter().copied()).style(dimmed))
            .block(
                Block::new()
                    .borders(Borders::TOP)
                    .title(panel.title)
                    .title_style(Style::new().fg(Color::Cyan)),
            )
            .column_spacing(2);
        frame.render_widget(table, *area);
    }
}

/// As wide as what stands in each column; the last takes the rest.
fn widths(panel: &Panel) -> Vec<Constraint> {
    let last = panel.columns.len() - 1;
    let columns = panel.columns.iter().enumerate();
    let widths = columns.map(|(at, name)| {
        let cells = panel.rows.iter().filter_map(|(cells, _)| cells.get(at));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        let width = widest.max(name.chars().count());
        let width = u16::try_from(width).unwrap_or(u16::MAX);
        if at == last {
            Constraint::Min(width)
        } else {
            Constraint::Length(width)
        }
    });
    widths.collect()
}

/// Waits so long, unless a person leaves before: by `q`, Escape or Ctrl-C.
pub(super) async fn is_left_within(time: Duration) -> io::Result<bool> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        while event::poll(Duration::ZERO)? {
            if leaves(&event::read()?) {
                return Ok(true);
            }
        }
        tokio::time::sleep(KEYS_INTERVAL).await;
    }
    Ok(false)
}

fn leaves(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::board;
    use ratatui::{Terminal, backend::TestBackend};

    #[test]
    fn the_board_fits_on_a_terminal() {
        let board = board::tests::board();
        let mut terminal = Terminal::new(TestBackend::new(110, 24)).unwrap();
        let (headline, panels) = (board.headline(), board.panels());
        terminal
            .draw(|frame| draw(frame, &headline, &panels))
            .unwrap();
        insta::assert_snapshot!(terminal.backend());
    }

    #[test]
    fn a_terminal_that_is_too_small_is_no_trouble() {
        let board = board::tests::board();
        let mut terminal = Terminal::new(TestBackend::new(12, 3)).unwrap();
        let (headline, panels) = (board.headline(), board.panels());
        terminal
            .draw(|frame| draw(frame, &headline, &panels))
            .unwrap();
    }
}
