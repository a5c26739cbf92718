//! Packs reports into the bodies of messages, and reads them.

use balancer_limiter::budget::SpentReport;
use balancer_limiter::message::MAX_REPORT_BYTES;

/// The bodies of as few messages as the reports fit into.
pub(super) fn packed(reports: &[SpentReport]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut body = Vec::new();
    for report in reports {
        let before = body.len();
        report.write(&mut body);
        if body.len() > MAX_REPORT_BYTES {
            let last = body.split_off(before);
            bodies.push(std::mem::replace(&mut body, last));
        }
    }
    if !body.is_empty() {
        bodies.push(body);
    }
    bodies
}

/// All reports of a body; `None` when any of it can't be read.
pub(super) fn read_reports(mut bytes: &[u8]) -> Option<Vec<SpentReport>> {
    let mut reports = Vec::new();
    while !bytes.is_empty() {
        reports.push(SpentReport::read(&mut bytes)?);
    }
    Some(reports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use balancer_limiter::identity::ClientKey;
    use balancer_limiter::limit::{Limit, Rate};
    use balancer_limiter::terms::BucketId;

    #[test]
    fn reports_go_into_as_few_messages_as_they_fit_in() {
        let limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };
        let report = |number: u64| SpentReport {
            client: ClientKey::digest(&number.to_be_bytes()),
            bucket: BucketId::of("default"),
            of_rule: false,
            has_own_row: false,
            limit,
            reset: None,
            episode: 1,
            spent: 100 + number,
            fresh: 20,
            rate_micro: 60_000_000,
        };
        let reports: Vec<SpentReport> =
            (0..balancer_limiter::budget::MAX_REPORTS as u64).map(report).collect();
        let bodies = packed(&reports);
        assert_eq!(bodies.len(), 2, "a flush is two messages at most");
        let read: Vec<SpentReport> = bodies.iter().flat_map(|body| read_reports(body).unwrap()).collect();
        assert_eq!(read, reports);
        assert!(packed(&[]).is_empty() && read_reports(&[1, 2]).is_none());
    }
}
