//! The report as people read it.

use undertone_inference::bench::{ClosedReport, Latencies, OpenReport};

use super::report::{Bulk, Report};

const HEAD: &str = "phase                        texts/s   tokens/s   tokens/text   p50 ms   p90 ms   p99 ms   max ms";

/// The lines of the table.
pub(super) fn lines(report: &Report<'_>) -> Vec<String> {
    let model = report.model;
    let mut lines = vec![
        format!("{} {} ({})", model.name, model.precision, model.short_revision()),
        format!(
            "{}, {} workers of one thread, {}",
            report.processor,
            report.workers,
            report.instruction_sets.join(" ")
        ),
        String::new(),
        HEAD.to_owned(),
    ];
    lines.extend(report.single.as_ref().map(|run| closed("one text at a time", run)));
    lines.extend(report.saturated.as_ref().map(|run| closed(&format!("bulk, {} in flight", run.in_flight), run)));
    lines.extend(report.interactive.as_ref().map(|run| open("interactive alone", run)));
    if let Some(mixed) = &report.mixed {
        lines.push(open("interactive beside bulk", &mixed.interactive));
        lines.push(match &mixed.bulk {
            Bulk::Closed(run) => closed("bulk beside interactive", run),
            Bulk::Open(run) => open("bulk beside interactive", run),
        });
    }
    lines.push(String::new());
    for (name, run) in
        [("alone", report.interactive.as_ref()), ("beside bulk", report.mixed.as_ref().map(|mixed| &mixed.interactive))]
    {
        lines.extend(run.map(|run| {
            format!(
                "interactive {name}: {} arrivals at {:.1} a second, {} refused; sent up to {:.1} ms late (p99)",
                run.texts + run.refused,
                run.arrivals_per_s,
                run.refused,
                run.send_lag_p99_ms
            )
        }));
    }
    let share = report.mixed.as_ref().and_then(|mixed| mixed.bulk_share);
    lines.extend(share.map(|share| format!("bulk beside interactive: {:.0} % of its tokens/s alone", 100.0 * share)));
    lines.extend(stages(report));
    lines.extend(report.gflops.map(|reached| match (report.peak_gflops, report.peak_share) {
        (Some(peak), Some(share)) => {
            format!("matrix products of bulk: {reached:.1} of {peak:.1} GFLOP/s, {:.0} % of the peak", 100.0 * share)
        }
        _ => format!("matrix products of bulk: {reached:.1} GFLOP/s"),
    }));
    lines.extend(report.rss_mib.map(|rss| format!("resident memory: {rss:.0} MiB")));
    lines
}

fn stages(report: &Report<'_>) -> Option<String> {
    let each = |stage: &super::Stage| match stage.share {
        Some(share) => format!("{} {:.3} ms ({:.1} %)", stage.stage, stage.ms_per_text, 100.0 * share),
        None => format!("{} {:.1} ms", stage.stage, stage.ms_per_text),
    };
    let stages: Vec<_> = report.stages.iter().map(each).collect();
    (!stages.is_empty()).then(|| format!("a bulk text's mean time by stage: {}", stages.join(", ")))
}

fn closed(name: &str, run: &ClosedReport) -> String {
    let tokens = run.tokens as f64 / run.texts.max(1) as f64;
    let rates = format!("{:>9.1} {:>10.0} {tokens:>13.1}", run.texts_per_s, run.tokens_per_s);
    format!("{name:<26} {rates}{}", percentiles(&run.latencies))
}

fn open(name: &str, run: &OpenReport) -> String {
    format!("{name:<26} {:>9.1} {:>10} {:>13}{}", run.arrivals_per_s, "", "", percentiles(&run.latencies))
}

fn percentiles(latencies: &Latencies) -> String {
    [0.5, 0.9, 0.99, 1.0].map(|p| format!(" {:>8.1}", latencies.percentile_ms(p))).concat()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{full, model};
    use super::*;

    #[test]
    fn every_phase_has_a_row_under_the_head() {
        let model = model();
        let report = full(&model);
        let lines = lines(&report);
        let rows: Vec<_> = lines.iter().skip_while(|line| *line != HEAD).take_while(|line| !line.is_empty()).collect();
        assert_eq!(rows.len(), 6, "{lines:#?}");
        assert!(rows.iter().all(|row| row.len() == HEAD.len()), "{lines:#?}");
        let text = lines.join("\n");
        for part in ["90 % of its tokens/s alone", "% of the peak", "encode 1.800 ms (90.0 %)", "350 MiB", "0 refused"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
