"""The scalar formulas of the library, and the fused loops made of them for each device."""
