//! What an installation does, as tables below each other.

use super::{lines, table};
use crate::top::Panel;
use comfy_table::{Cell, CellAlignment, Color};

/// All panels, for those who do not watch.
pub(crate) fn board(headline: &str, panels: &[Panel]) -> String {
    let mut text = format!("{headline}\n");
    for panel in panels {
        let mut table = table(panel.columns);
        for (cells, is_urgent) in &panel.rows {
            let cells = cells.iter().map(|cell| match is_urgent {
                true => Cell::new(cell).fg(Color::Red),
                false => Cell::new(cell),
            });
            table.add_row(cells);
        }
        let last = panel.columns.len() - 1;
        for column in table.column_iter_mut().skip(1).take(last.saturating_sub(1)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text += &format!("\n{}\n{}", panel.title, lines(&table));
    }
    text
}
