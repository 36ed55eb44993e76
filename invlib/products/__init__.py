"""Matrix products as the processor makes them fastest: in fp32 (`linear`), and in eight bits (`int8`)."""
