"""What Channel Access shows of a PV: records, their kinds and fields, as DBR types."""
