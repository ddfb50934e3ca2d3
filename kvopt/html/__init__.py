"""The report of a result as one HTML file that needs nothing else: no network, no fonts, no server."""

from kvopt.html.report import report_html as report_html
from kvopt.html.report import reports_on as reports_on
