"""Where pictures come from: a source gives shards, which workers open; a shard gives rows."""
