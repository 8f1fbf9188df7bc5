"""The benchmarks behind the README's figures: each prints ratios against a baseline measured in the same run."""
