//! A progress bar on a terminal, and nothing in a pipe.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes up to `total`, if that is known.
pub(crate) fn progress_bar(total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => {
            let template = "{bar:40} {binary_bytes} of {binary_total_bytes}, \
                            {binary_bytes_per_sec}, {eta} left";
            (ProgressBar::new(total), template)
        }
        None => (ProgressBar::no_length(), "{spinner} {binary_bytes}, {binary_bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
