"""Quality over the whole cohort: inclusion rules, outliers, and the cohort page."""
