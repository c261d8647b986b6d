// Package metricsv1 is version 1 of the wire contract for samples of metrics: sampled (put).
package metricsv1
