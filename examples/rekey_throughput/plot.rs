//! The plot: how the times are distributed, and how many rekeys there were from moment to moment.

use std::error::Error;

use hdrhistogram::Histogram;
use plotters::{
    coord::Shift,
    prelude::{
        AreaSeries, BindKeyPoints, ChartBuilder, Color, DrawingArea, IntoDrawingArea, IntoFont,
        IntoLogRange, PathElement, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, Text,
        WHITE,
    },
    series::LineSeries,
};

use crate::record::{Record, microseconds};

const SIZE: (u32, u32) = (960, 760);
const BINS: usize = 80;
const TIME: RGBColor = RGBColor(31, 98, 166);
const STALL: RGBColor = RGBColor(214, 110, 20);

/// Intervals of time, in microseconds, each longer than the one before by the same factor.
struct Bins {
    left: f64,
    right: f64,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Gives the plot as the text of an SVG.
pub(crate) fn svg(title: &str, record: &Record) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(title, ("sans-serif", 20).into_font())?;
        let (above, below) = root.split_vertically(420);
        distribution(&above, record)?;
        rate(&below, record)?;
        root.present()?;
    }
    Ok(svg)
}

/// Which part of the rekeys took how long. The axis is logarithmic: a machine that does other things as
/// well makes some of the times a hundred times as long.
fn distribution(area: &Area<'_>, record: &Record) -> Result<()> {
    let series = [("time per rekey", TIME, &record.times), ("stall", STALL, &record.stalls)];
    let series: Vec<_> = series.into_iter().filter(|(_, _, times)| !times.is_empty()).collect();
    let shortest = series.iter().map(|(_, _, times)| times.min()).min().unwrap_or_default();
    let longest = series.iter().map(|(_, _, times)| times.max()).max().unwrap_or_default();
    let bins = Bins {
        left: microseconds(shortest).max(0.1) / 1.1,
        right: microseconds(longest).max(0.1) * 1.1,
    };
    let shares: Vec<_> = series.iter().map(|(_, _, times)| bins.shares(times)).collect();
    let top = shares.iter().flatten().copied().fold(0.0, f64::max).max(1.0) * 1.4;

    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
        (bins.left..bins.right).log_scale().with_key_points(bins.labels()),
        0.0..top,
    )?;
    chart
        .configure_mesh()
        .x_desc("microseconds")
        .y_desc("share of the rekeys, %")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    // The labels of one series are below those of the other, and both below the legend.
    let heights = [0.83, 0.77].map(|height| height * top);
    for (((name, color, times), shares), height) in series.into_iter().zip(&shares).zip(heights) {
        let bars = shares.iter().enumerate().filter(|(_, share)| **share > 0.0);
        chart
            .draw_series(bars.map(|(bin, share)| {
                let corners = [(bins.edge(bin), 0.0), (bins.edge(bin + 1), *share)];
                Rectangle::new(corners, color.mix(0.45).filled())
            }))?
            .label(summary(name, times))
            .legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.mix(0.45).filled())
            });
        for (quantile, label) in [(0.5, " p50"), (0.99, " p99")] {
            let x = microseconds(times.value_at_quantile(quantile));
            chart.draw_series([PathElement::new([(x, 0.0), (x, height)], color)])?;
            let style = ("sans-serif", 13).into_font().color(&color);
            chart.draw_series([Text::new(label, (x, height), style)])?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperMiddle)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(180, 180, 180))
        .draw()?;
    Ok(())
}

/// How many rekeys per second there were.
fn rate(area: &Area<'_>, record: &Record) -> Result<()> {
    let rates: Vec<_> = record.rates().collect();
    let end = record.interval.as_secs_f64() * rates.len() as f64;
    let top = rates.iter().map(|(_, rate)| *rate).fold(1.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("seconds since the start")
        .y_desc("rekeys per second")
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    chart.draw_series(AreaSeries::new(rates.iter().copied(), 0.0, TIME.mix(0.2)))?;
    chart.draw_series(LineSeries::new(rates.iter().copied(), TIME.stroke_width(2)))?;
    Ok(())
}

impl Bins {
    /// Where a bin begins.
    fn edge(&self, bin: usize) -> f64 {
        self.left * (self.right / self.left).powf(bin as f64 / BINS as f64)
    }

    /// Round numbers for the axis.
    fn labels(&self) -> Vec<f64> {
        let decades = (-1..=10).map(|exponent| 10_f64.powi(exponent));
        let labels = decades.flat_map(|decade| [1.0, 2.0, 3.0, 5.0].map(|step| step * decade));
        labels.filter(|label| (self.left..self.right).contains(label)).collect()
    }

    /// How much of the times lies in each bin, in percent.
    fn shares(&self, times: &Histogram<u64>) -> Vec<f64> {
        let mut shares = vec![0.0; BINS];
        for value in times.iter_recorded() {
            let time = microseconds(value.value_iterated_to());
            let bin = (0..BINS).find(|bin| time < self.edge(bin + 1));
            if let Some(share) = bin.and_then(|bin| shares.get_mut(bin)) {
                *share += value.count_at_value() as f64 * 100.0 / times.len() as f64;
            }
        }
        shares
    }
}

fn summary(name: &str, times: &Histogram<u64>) -> String {
    let [p50, p99] = [0.5, 0.99].map(|quantile| microseconds(times.value_at_quantile(quantile)));
    let max = microseconds(times.max());
    format!("{name}: p50 {p50:.0}, p99 {p99:.0}, max {max:.0}")
}
