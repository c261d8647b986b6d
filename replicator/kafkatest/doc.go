// Package kafkatest tests links on real Apache Kafka. It holds tests only, with
// the build tag "kafka", and nothing imports it.
//
// The clusters are those of deploy/kafka/kafka.sh, one broker each, which
// deploy/kafka/test.sh starts; records are written and read by kcat and franz-go,
// which know nothing of links, and what kcat reads at both ends is compared: offset,
// timestamp, key, value and headers. Each test has topics of its own, so all of them
// share the clusters. Those that kill or restart these brokers run one after the other,
// before the others, which run in parallel. Two tests start clusters of their own, at
// ports from 300 above the first on: TestReplicated one of three brokers, in which leaders
// move and unclean ones are elected, and TestSecured two with TLS, SASL and an authorizer.
//
// What is shown here and not by the simulations of package replicator, whose
// Kafka is an imitation: what real brokers accept, remember, forget, compact, lose and
// forbid. TestRelay is of three regions, one of which is lost.
//
// Tests that kill draw everything from a seed and print the command that repeats
// them; -kill.rounds or KILL_ROUNDS says how long they go on. What cannot be repeated is
// when the processes and brokers get to run.
//
// # MirrorMaker 2's own integration tests
//
// Their counterparts, by the names that they have in
// MirrorConnectorsIntegrationBaseTest and the classes beside it:
//
//	testReplication                               TestKillRounds, TestBytes, TestRestart (one direction; two links are one each way)
//	testReplicationWithEmptyPartition             TestEmptyPartition, TestGroupOffsets
//	testOneWayReplicationWithAutoOffsetSync       TestGroupOffsets
//	testOneWayReplicationWithFrequentOffsetSyncs  TestGroupOffsets
//	testOffsetTranslationBehindReplicationFlow    TestGroupsBehind (the offset waits for its record; it is never put back)
//	testNoCheckpointsIfNoRecordsAreMirrored       TestGroupOffsets (an empty partition), TestGroupsBehind (a partition that stands still)
//	testOffsetSyncsTopicsOnTarget                 TestLinkTopic
//	testRestartReplication                        TestRestart (with a group), TestPause
//	testReplicateFromLatest                       TestResumeLatest (after a loss; a new mirror begins where its log does, else it could not take its place)
//	testSyncTopicConfigs                          TestTopicConfigs (overrides in place of an exclude filter)
//	testReplicateSourceDefault                    TestTopicConfigs (what holds at the source holds at the mirror, wherever it comes from)
//	testReplicateTargetDefault                    TestTopicConfigs (a config that goes back to its default), follow's tests of defaults that differ
//	topic ACLs                                    TestSecured (PREFIXED ones too, and nobody but the link writes)
//	IdentityReplicationIntegrationTest            TestNamesOfBothWays (names say whose a mirror is: same offsets for consumers, and no loops)
//	MirrorConnectorsIntegrationExactlyOnceTest    TestKillRounds, TestZombies, TestForgottenProducer
//	MirrorConnectorsIntegrationTransactionsTest   TestTransactions, TestOpenTransaction, TestKillRoundsOnHoles
//	MirrorConnectorsIntegrationSSLTest            TestSecured (a password, a certificate; also by a node's configuration)
//	DedicatedMirrorIntegrationTest                TestZombies (several processes of one link)
//	DataLossAndTopicResetDetectionIntegrationTest TestRetentionOvertakes, TestRecreatedSource, TestTruncated, TestReplicated
package kafkatest
