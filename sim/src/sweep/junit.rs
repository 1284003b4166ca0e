//! A sweep as JUnit XML, for CI systems that show it.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::Judged;

/// The report of a sweep of this name: a test a seed.
pub fn report(name: &str, all: &[Judged]) -> Report {
    let mut suite = TestSuite::new(name);
    for judged in all {
        let mut status = TestCaseStatus::success();
        if let Some(failure) = &judged.failure {
            status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type(failure.check.clone());
            status.set_message(format!("at {} ms: {}", failure.at_ms, failure.reason));
        }
        let mut case = TestCase::new(format!("seed {}", judged.seed), status);
        case.set_time(std::time::Duration::from_micros(judged.cpu_us));
        suite.add_test_case(case);
    }
    let mut report = Report::new(name);
    report.add_test_suite(suite);
    report
}
