//! Cases in which we differ, and are right to. They count as differing all the same.

/// Id and reason.
const DEVIATIONS: &[(&str, &str)] = &[
    (
        "callback/test_callback.py::TestCallback::test_sqs_failure_in_wait_for_task_tok_no_error_field[SQS_WAIT_FOR_TASK_TOKEN_CATCH]",
        "the step was failed without naming an error, which a reply of ours cannot do",
    ),
    (
        "context_object/test_context_object.py::TestSnfBase::test_input_path[$$]",
        "nobody has a role here, so `$$.Execution.RoleArn` is empty",
    ),
    (
        "states_variables/test_error_output.py::TestStateVariablesTemplate::test_parallel_catch_error[PARALLEL_CATCH_ERROR_OUTPUT]",
        "the recording does not tell what the task in the branch answered",
    ),
    (
        "states_variables/test_error_output.py::TestStateVariablesTemplate::test_parallel_catch_error[PARALLEL_CATCH_ERROR_OUTPUT_WITH_RETRY]",
        "the recording does not tell what the task in the branch answered",
    ),
    (
        "scenarios/test_base_scenarios.py::TestBaseScenarios::test_parallel_state_nested",
        "the recording lacks the exit of the inner Parallel",
    ),
    (
        "timeouts/test_timeouts.py::TestTimeouts::test_service_lambda_map_timeout",
        "four tasks time out in one moment: the first timeout fails the Map, and the others are aborted",
    ),
];

/// Why a case may differ.
pub(crate) fn reason(id: &str) -> Option<&'static str> {
    DEVIATIONS
        .iter()
        .find(|(known, _)| *known == id)
        .map(|(_, reason)| *reason)
}
