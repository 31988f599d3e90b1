//! The services that Step Functions calls through `arn:aws:states:::...`, and how each may be called.
//!
//! Definitions that come from Step Functions name them; here each call is a task for our workers.
//! What Step Functions refuses to name is refused, so that a typing error is found before it runs.
//! Source: the AWS Step Functions developer guide, "Integrating optimized services".

/// How an optimized integration may be called.
pub(super) struct Integration {
    /// As the ARN calls the service.
    pub(super) service: &'static str,
    /// The actions that it has.
    pub(super) actions: &'static [&'static str],
    /// The actions that can be waited for with `.sync`.
    pub(super) jobs: &'static [&'static str],
    /// The actions that can wait for a token.
    pub(super) callbacks: &'static [&'static str],
}

const NONE: &[&str] = &[];

macro_rules! integration {
    ($service:literal, $actions:expr, $jobs:expr, $callbacks:expr) => {
        Integration {
            service: $service,
            actions: &$actions,
            jobs: &$jobs,
            callbacks: &$callbacks,
        }
    };
}

/// The optimized integrations. Every other service is called through `aws-sdk`.
pub(super) const INTEGRATIONS: &[Integration] = &[
    integration!("apigateway", ["invoke"], NONE, ["invoke"]),
    integration!(
        "athena",
        [
            "startQueryExecution",
            "stopQueryExecution",
            "getQueryExecution",
            "getQueryResults"
        ],
        ["startQueryExecution"],
        NONE
    ),
    integration!("batch", ["submitJob"], ["submitJob"], NONE),
    integration!(
        "bedrock",
        ["invokeModel", "createModelCustomizationJob"],
        ["createModelCustomizationJob"],
        ["invokeModel"]
    ),
    integration!(
        "codebuild",
        [
            "startBuild",
            "stopBuild",
            "batchDeleteBuilds",
            "batchGetReports",
            "startBuildBatch",
            "stopBuildBatch",
            "retryBuildBatch",
            "deleteBuildBatch",
        ],
        ["startBuild", "startBuildBatch", "retryBuildBatch"],
        NONE
    ),
    integration!("databrew", ["startJobRun"], ["startJobRun"], NONE),
    integration!(
        "dynamodb",
        ["getItem", "putItem", "deleteItem", "updateItem"],
        NONE,
        NONE
    ),
    integration!("ecs", ["runTask"], ["runTask"], ["runTask"]),
    integration!(
        "eks",
        [
            "call",
            "runJob",
            "createCluster",
            "deleteCluster",
            "createFargateProfile",
            "deleteFargateProfile",
            "createNodegroup",
            "deleteNodegroup",
        ],
        [
            "runJob",
            "createCluster",
            "deleteCluster",
            "createFargateProfile",
            "deleteFargateProfile",
            "createNodegroup",
            "deleteNodegroup",
        ],
        NONE
    ),
    integration!(
        "elasticmapreduce",
        [
            "createCluster",
            "addStep",
            "cancelStep",
            "terminateCluster",
            "setClusterTerminationProtection",
            "modifyInstanceFleetByName",
            "modifyInstanceGroupByName",
        ],
        ["createCluster", "addStep", "terminateCluster"],
        NONE
    ),
    integration!(
        "emr-containers",
        [
            "createVirtualCluster",
            "deleteVirtualCluster",
            "startJobRun"
        ],
        ["deleteVirtualCluster", "startJobRun"],
        NONE
    ),
    integration!(
        "emr-serverless",
        [
            "createApplication",
            "startApplication",
            "stopApplication",
            "deleteApplication",
            "startJobRun",
            "cancelJobRun",
        ],
        [
            "createApplication",
            "startApplication",
            "stopApplication",
            "deleteApplication",
            "startJobRun",
            "cancelJobRun",
        ],
        NONE
    ),
    integration!("events", ["putEvents"], NONE, ["putEvents"]),
    integration!("glue", ["startJobRun"], ["startJobRun"], NONE),
    integration!("http", ["invoke"], NONE, NONE),
    integration!("lambda", ["invoke"], NONE, ["invoke"]),
    integration!("mediaconvert", ["createJob"], ["createJob"], NONE),
    integration!(
        "sagemaker",
        [
            "createEndpoint",
            "createEndpointConfig",
            "createHyperParameterTuningJob",
            "createLabelingJob",
            "createModel",
            "createProcessingJob",
            "createTrainingJob",
            "createTransformJob",
            "updateEndpoint",
        ],
        [
            "createHyperParameterTuningJob",
            "createLabelingJob",
            "createProcessingJob",
            "createTrainingJob",
            "createTransformJob",
        ],
        NONE
    ),
    integration!("sns", ["publish"], NONE, ["publish"]),
    integration!("sqs", ["sendMessage"], NONE, ["sendMessage"]),
    integration!(
        "states",
        ["startExecution"],
        ["startExecution"],
        ["startExecution"]
    ),
];
